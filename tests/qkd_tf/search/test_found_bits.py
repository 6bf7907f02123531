"""The widths that --bits=auto finds, on a student of random weights."""

import dataclasses
import json

import pytest

from qkd_tf.experiment import (
    DataSpec,
    Experiment,
    ExperimentError,
    NetworkSpec,
    PixelNormalization,
    QuantizationSpec,
    TargetSpec,
    TrainingSpec,
)
from qkd_tf.quantization.stored_bytes import StoredWidths
from qkd_tf.search import found_bits
from qkd_tf.search.subject import Examples, Subject

LOSSES = {"stem": 3.0, "depthwise": 0.5, "linear": 1.0, "logits": 9.0}
SAVED = {"stem": 48, "depthwise": 16, "logits": 16}  # by 4 bits; the 16 bytes of linear are aligned to 16 either way


@pytest.fixture
def experiment(tmp_path):
    return Experiment(
        run_dir=str(tmp_path),
        seed=0,
        data=DataSpec(name="tiny"),
        student=NetworkSpec("residual", PixelNormalization((128.0,), (64.0,))),
        teacher=None,
        quantization=QuantizationSpec(weight_bits=8, activation_bits=8, finds_bits=True),
        training=TrainingSpec(phases=()),
        target=TargetSpec("microcontroller", max_flash_bytes=1),
    )


@pytest.fixture
def find(experiment, make_residual_student, make_splits, tmp_path):
    """find(bytes below the widest): what is found, and how many students were measured for it."""
    splits, model = make_splits(), make_residual_student()
    examples = Examples([images for images, _ in splits.calibration], splits.validation)
    subject = Subject(model, experiment.quantization, examples, 0)
    stored = StoredWidths(model, subject.plan, experiment.target, experiment.quantization)

    def find(below, path=tmp_path / "bits.json"):
        target = dataclasses.replace(experiment.target, max_flash_bytes=stored.file_bytes - below)
        asked = dataclasses.replace(experiment, target=target)
        return found_bits.find(asked, model, examples, path, splits.fingerprint)

    return find


@pytest.fixture
def told(monkeypatch):
    """Students lose by LOSSES; the rules that were asked for."""
    asked = []

    def judge(self, *rules):
        asked.append(rules)
        return 95.0 - sum(LOSSES[rule.partition("=")[0]] for rule in rules), 0.0

    monkeypatch.setattr(Subject, "judge", judge)
    return asked


@pytest.mark.parametrize(
    "below, narrow",
    [
        (1, {"depthwise"}),
        (17, {"stem"}),
        (49, {"stem", "depthwise"}),
        (80, {"stem", "depthwise", "logits"}),
    ],
)
def test_widths_are_the_least_loss_within_the_budget(find, told, below, narrow, tmp_path, capsys):
    found = find(below)
    assert {layer for layer, bits in found.items() if bits == 4} == narrow and set(found.values()) <= {4, 8}
    assert told == [(), *((f"{layer}=w4",) for layer in SAVED)]
    assert sum(SAVED[layer] for layer in narrow) >= below
    assert "--bits_rule='stem=w" in capsys.readouterr().out
    assert json.loads((tmp_path / "bits.json").read_text())["widths"] == found


def test_what_was_found_is_settled_and_not_found_again(find, told, experiment, tmp_path):
    path = tmp_path / "bits.json"
    assert found_bits.settled(experiment, path) is None
    find(27)
    settled = found_bits.settled(experiment, path)
    assert settled.quantization.found_bits == (4, 8, 8, 8) and not settled.quantization.is_open
    assert found_bits.settled(settled, tmp_path / "gone") is settled
    path.write_text(path.read_text().replace('"stem": 4', '"stem": 8'))
    with pytest.raises(ExperimentError, match="bits.json was changed .* the widths are found again, the same ones"):
        found_bits.settled(experiment, path)


def test_with_room_for_the_widest_nothing_is_measured(find, told, experiment, tmp_path, capsys):
    assert find(0) == dict.fromkeys(LOSSES, 8) and told == []
    assert "is enough for the largest widths: all kernels keep their bits" in capsys.readouterr().out
    assert found_bits.settled(experiment, tmp_path / "bits.json").quantization.found_bits == (8, 8, 8, 8)


@pytest.mark.slow
def test_a_second_run_measures_and_finds_the_same(find, tmp_path):
    first, second = tmp_path / "bits.json", tmp_path / "second.json"
    assert find(27) == find(27, second)
    assert json.loads(first.read_text())["rows"] == json.loads(second.read_text())["rows"] != []
