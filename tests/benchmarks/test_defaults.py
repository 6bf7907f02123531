"""The search for defaults: how epochs are shared out, and which options go on."""

import re
import types

import pytest
from absl import flags as absl_flags

from benchmarks import defaults
from qkd_tf.experiment import ExperimentError


@pytest.mark.parametrize(
    "schedule, epochs, expected",
    [
        (defaults.ALONE, 4, {"self_studying": 4}),
        (defaults.FIXED, 4, {"self_studying": 1, "tutoring": 3}),
        (defaults.FIXED, 20, {"self_studying": 3, "tutoring": 17}),
        (defaults.QKD, 20, {"self_studying": 3, "co_studying": 10, "tutoring": 7}),
        (defaults.QKD, 2, {"co_studying": 1, "tutoring": 1}),
    ],
)
def test_phases_share_all_epochs(schedule, epochs, expected):
    assert defaults.epochs_of(schedule, epochs) == expected


@pytest.mark.parametrize("epochs", range(1, 60))
def test_no_epoch_is_lost(epochs):
    for schedule in (defaults.ALONE, defaults.FIXED, defaults.QKD):
        assert sum(defaults.epochs_of(schedule, epochs).values()) == epochs


@pytest.mark.parametrize(
    "top1, expected",
    [
        ({"alone": 80.0, "a": 82.0, "b": 81.0, "c": 79.0}, ["a", "b", "alone"]),
        ({"alone": 82.5, "a": 82.0, "b": 81.0}, ["alone", "a"]),
        ({"a": 82.0, "b": 81.0}, ["a"]),
        ({"alone": 80.0}, ["alone"]),
        ({}, []),
    ],
)
def test_better_half_goes_on_and_the_base_with_it(top1, expected):
    assert defaults.better_half(top1) == expected


@pytest.mark.parametrize("text, expected", [("4", (4, 1)), ("20x3", (20, 3))])
def test_rounds_are_epochs_and_seeds(text, expected):
    assert defaults.round_of(text) == expected


@pytest.mark.parametrize("text", ["", "x", "4x", "x3x", "0", "4x0", "many"])
def test_a_round_that_is_none_is_refused(text):
    with pytest.raises(ExperimentError, match="expected EPOCHS or EPOCHSxSEEDS"):
        defaults.round_of(text)


@pytest.mark.parametrize(
    "flag, value, told",
    [
        ("options", "weights_ema_0.9", "unknown option in --options 'weights_ema_0.9'; did you mean weights_ema_0.99"),
        ("rounds", "4x", "--rounds has '4x'"),
        ("bits", "w9a9", "--bits=w9a9 is out of range"),
    ],
)
def test_a_mistake_in_a_flag_is_told_before_anything_trains(monkeypatch, flag, value, told):
    values = {name: defaults.FLAGS[name].default for name in ("options", "rounds", "bits")} | {flag: [value]}
    monkeypatch.setattr(defaults, "FLAGS", types.SimpleNamespace(**values))
    with pytest.raises(SystemExit, match=f"^error: {re.escape(told)}"):
        defaults.main([])


def test_a_cell_that_has_its_file_is_not_trained_again_and_one_that_fails_ends_its_option(monkeypatch, tmp_path):
    trained = []

    def train(cell):
        trained.append(cell)
        if cell.option == "adam":
            raise ExperimentError("the loss is not a number")
        return {"validation_top1": 80.0 + len(cell.option) / 100, "teacher_validation_top1": None, "seconds": 1.0}

    values = defaults.FLAGS
    saved = absl_flags.FLAGS.is_parsed()
    values.mark_as_parsed()
    monkeypatch.setattr(defaults, "train", train)
    monkeypatch.setattr(values["results_dir"], "value", str(tmp_path))
    monkeypatch.setattr(values["rounds"], "value", ["1", "2x2"])
    monkeypatch.setattr(values["options"], "value", ["full_range", "adam", "crop_2"])
    try:
        for _ in range(2):
            with defaults.ThreadPoolExecutor(1) as pool:
                defaults.halve("w2a2", pool)
    finally:
        if not saved:
            values.unparse_flags()
    once = [(1, 0), (2, 0), (2, 1)]
    tried = {option: [cell[2:] for cell in trained if cell.option == option] for option in ("full_range", "adam")}
    assert tried == {"full_range": once, "adam": [(1, 0), (1, 0)]}
    assert (tmp_path / "full_range_w2a2_2_epochs_seed1.json").exists()
