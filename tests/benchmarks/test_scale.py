"""Each step of the measurement on a small network; what is measured is too large for a test."""

import dataclasses

import pytest
from tf_keras import layers

from benchmarks import scale
from benchmarks.scale import CORES, GPU_IMAGES, Cost, Setting
from qkd_tf.data import pipeline
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization.scheme import quantize_student
from tflite_export.inference.runtimes import absence

FEW, MANY = 4, 12


@pytest.fixture
def small(monkeypatch, chain, tmp_path):
    """A setting of 8 x 8 pixels, with few files."""
    monkeypatch.setattr(scale, "NETWORKS", {"small": 8})
    monkeypatch.setattr(scale, "NUM_CLASSES", 5)
    monkeypatch.setattr(scale.scale_pictures, "NUM_CLASSES", 3)
    monkeypatch.setattr(scale.scale_pictures, "NUM_DISTINCT", 2)
    monkeypatch.setattr(scale, "NUM_READ", 20)
    monkeypatch.setattr(pipeline, "CACHE_BYTES", pipeline.CACHE_BYTES)  # a step changes it in its own process
    monkeypatch.setattr(scale.looks, "VERSION", scale.looks.VERSION)
    monkeypatch.setattr(scale.looks, "SETTLED", 0.1)
    for name, step in scale.STEPS.items():
        counts = {} if step.few == step.many else {"few": FEW, "many": MANY}
        monkeypatch.setitem(scale.STEPS, name, dataclasses.replace(step, **counts))

    def make(setting):
        model = chain(layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(5, name="logits"))
        return quantize_student(model, QuantizationSpec())

    monkeypatch.setattr(scale, "make_student", make)
    return Setting("small", 4, tmp_path, None)


@pytest.mark.slow
def test_every_step_has_a_row_and_the_file_has_every_integer_that_was_predicted(small):
    for name in scale.STEPS:
        if absence(name):
            continue
        row = scale.measure(small, name)
        assert 0 < row["before"] <= row["peak"]
        assert all(row[number] >= 0 for number in ("seconds", "of_image", "here", "there"))
        _, *cells, _ = (cell.strip() for cell in scale.line(small, name, row).split("|"))
        assert cells[:2] == ["small, 8", name] and len(cells) == scale.HEADER.splitlines()[-1].count("---")
    assert (small.run.path / "report.html").exists()
    assert len(list((small.folder / "pictures_20" / "train").glob("*/*.jpg"))) == 20


def test_photographs_of_a_folder_are_taken_where_there_are_some(small, tmp_path):
    scale.scale_pictures.lay_out(tmp_path / "first", None, 4)
    drawn = {path.resolve() for path in (tmp_path / "first").glob("*/*/*.jpg")}
    photographs = tmp_path / "mine"
    for number, path in enumerate(sorted(drawn)):
        (photographs / str(number)).mkdir(parents=True)
        path.rename(photographs / str(number) / path.name)
    scale.scale_pictures.lay_out(tmp_path / "second", photographs, 4)
    found = {path.resolve() for path in (tmp_path / "second").glob("train/*/*.jpg")}
    assert len(found) == 2 and all(path.is_relative_to(photographs) for path in found)


def test_cost_of_an_image_is_what_more_of_them_take():
    cost = Cost.of((10, 7.0), (30, 11.0))
    assert (cost.fixed, cost.of_image) == (5.0, 0.2)
    assert cost.hours(50_000) == pytest.approx((5 + 10_000) / 3600)
    assert Cost.of((0, 3.0)) == Cost(3.0, 0.0)
    assert Cost.of((10, 9.0), (30, 4.0)) == Cost(9.0, 0.0)  # other work came between


@pytest.mark.parametrize("faster, of_image", [("cores", 0.2 * 2 / CORES), ("gpu", 1 / GPU_IMAGES), ("nothing", 0.2)])
def test_another_machine_is_calculated_by_what_makes_a_step_faster(faster, of_image):
    assert Cost(5.0, 0.2).elsewhere(faster, 2) == Cost(5.0, pytest.approx(of_image))


@pytest.mark.slow
def test_step_that_failed_is_told_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setitem(scale.NETWORKS, "NoNetwork", 8)  # of which the child knows nothing
    setting = Setting("NoNetwork", 4, tmp_path, None)
    row = scale.in_child(setting, "calibration")
    line = scale.line(setting, "calibration", row)
    assert line.startswith("| NoNetwork, 8 | calibration | ") and "invalid choice: 'NoNetwork'" in line
    done = {"peak": 1.5, "here": 3.0, "there": 0.25}
    rows = {"calibration": row, "opening": done, "scanning": done, "scanning again": done}
    assert scale.sums(setting, rows) == "| NoNetwork, 8 | all | 1.50 | | | | 6 | 0.5 |"


def test_command_prints_a_table_of_what_its_children_found(small, monkeypatch, capsys):
    row = {"peak": 1.5, "before": 1.0, "seconds": 2.0, "of_image": 0.1, "here": 3.0, "there": 0.25}
    monkeypatch.setattr(scale, "in_child", lambda setting, name: row)
    scale.main([f"--folder={small.folder}"])
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("| small, 8 | ")]) == len(scale.STEPS) + 1
    assert lines[-1].startswith("| small, 8 | all | 1.50 |")
