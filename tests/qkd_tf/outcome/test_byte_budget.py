"""Widths within a budget, and what a file has beside kernels."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkd_tf.experiment import ExperimentError, TargetSpec
from qkd_tf.outcome.byte_budget import ByteBudget, bytes_beside_kernels

LAYERS = "abcd"
LOSSES = st.fixed_dictionaries(
    {pair: st.integers(-3, 30).map(lambda images: 100 * images / 144) for pair in itertools.product(LAYERS, (4, 2))}
)


@given(losses=LOSSES, weights=st.lists(st.integers(1, 40), min_size=4, max_size=4), limit=st.integers(40, 220))
@settings(max_examples=100, deadline=None)
def test_no_other_widths_within_the_budget_lose_less(losses, weights, limit):
    sizes = dict(zip(LAYERS, weights, strict=True))
    budget = ByteBudget("max_weight_bytes", limit, lambda layer, bits: sizes[layer] * bits / 8, other_bytes=40)
    trained = dict.fromkeys(LAYERS, 8)

    def loss(widths):
        return sum(max(losses.get(pair, 0.0), 0.0) for pair in widths.items())

    others = [dict(zip(LAYERS, bits, strict=True)) for bits in itertools.product((8, 4, 2), repeat=4)]
    within = [loss(widths) for widths in others if budget.needed(widths) <= limit]
    if not within:
        with pytest.raises(
            ExperimentError, match=f"--max_weight_bytes={limit} is too little: the fewest of these bits"
        ):
            budget.widths(trained, losses)
        return
    found = budget.widths(trained, losses)
    assert budget.needed(found) <= limit and loss(found) == pytest.approx(min(within))
    assert found == budget.widths(trained, losses)


def test_where_all_widths_are_stored_alike_none_is_taken_away():
    budget = ByteBudget("max_flash_bytes", 100, lambda layer, bits: 50)
    assert budget.widths({"a": 8, "b": 3}, {("a", 4): -1.0, ("b", 4): -1.0, ("b", 2): 0.0}) == {"a": 8, "b": 3}


def write(folder, **changed):
    folder.mkdir()
    found = {"file": {"bytes": 1000}, "kernels": [{"bytes": 300}, {"bytes": 200}], **changed}
    (folder / "verification.json").write_text(json.dumps(found))


def test_bytes_beside_kernels_are_those_of_the_file_of_that_target(tmp_path):
    write(tmp_path / "export", target="a phone with LiteRT")
    chip = "a microcontroller with TensorFlow Lite for Microcontrollers"
    write(tmp_path / "export-microcontroller", target=chip, file={"bytes": 900})
    assert bytes_beside_kernels(tmp_path, TargetSpec("phone")) == 500
    assert bytes_beside_kernels(tmp_path, TargetSpec("microcontroller")) == 400


@pytest.mark.parametrize("changed", [None, {"kernels": []}, {"file": None}, {"target": "a phone with LiteRT"}])
def test_a_run_without_a_file_for_the_target_is_told_to_export_it(tmp_path, changed):
    if changed is not None:
        write(tmp_path / "export", **{"target": "an Ethos-U NPU", **changed})
    with pytest.raises(ExperimentError, match="has none for ethos_u; run python -m tflite_export --run_dir=.* first"):
        bytes_beside_kernels(tmp_path, TargetSpec("ethos_u"))
