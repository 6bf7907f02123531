"""Widths within a budget."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkd_tf.experiment import ExperimentError
from qkd_tf.search.byte_budget import ByteBudget
from qkd_tf.search.subject import Sensitivity

LAYERS = "abcd"


def row(layer, num_bits, loss, divergence=0.0):
    return Sensitivity(layer, num_bits, 90.0 - loss, loss, 0.0, divergence)


LOSSES = st.fixed_dictionaries(
    {pair: st.integers(-3, 30).map(lambda images: 100 * images / 144) for pair in itertools.product(LAYERS, (4, 2))}
)


@given(losses=LOSSES, weights=st.lists(st.integers(1, 40), min_size=4, max_size=4), limit=st.integers(40, 220))
@settings(max_examples=100, deadline=None)
def test_no_other_widths_within_the_budget_lose_less(losses, weights, limit):
    sizes = dict(zip(LAYERS, weights, strict=True))
    budget = ByteBudget("max_weight_bytes", limit, lambda layer, bits: sizes[layer] * bits / 8, other_bytes=40)
    trained, rows = dict.fromkeys(LAYERS, 8), [row(*pair, value) for pair, value in losses.items()]

    def loss(widths):
        return sum(max(losses.get(pair, 0.0), 0.0) for pair in widths.items())

    others = [dict(zip(LAYERS, bits, strict=True)) for bits in itertools.product((8, 4, 2), repeat=4)]
    within = [loss(widths) for widths in others if budget.needed(widths) <= limit]
    if not within:
        with pytest.raises(
            ExperimentError, match=f"--max_weight_bytes={limit} is too little: even the fewest of these bits"
        ):
            budget.widths(trained, rows)
        return
    found = budget.widths(trained, rows)
    assert budget.needed(found) <= limit and loss(found) == pytest.approx(min(within))
    assert found == budget.widths(trained, rows)


def test_fewer_bits_are_advised_only_where_there_are_fewer():
    budget = ByteBudget("max_weight_bytes", 3, lambda layer, bits: bits)
    with pytest.raises(ExperimentError, match="even the fewest of these bits need 4 bytes; allow more bytes"):
        budget.require_possible({"a": (8, 2), "b": (4, 2)})
    with pytest.raises(ExperimentError, match="need 6 bytes; allow fewer bits in --try_bits, or more bytes"):
        budget.require_possible({"a": (8, 3), "b": (4, 3)})


def test_where_all_widths_are_stored_alike_none_is_taken_away():
    budget = ByteBudget("max_flash_bytes", 100, lambda layer, bits: 50)
    assert budget.widths({"a": 8, "b": 3}, [row("a", 4, -1.0), row("b", 4, -1.0), row("b", 2, 0.0)]) == {"a": 8, "b": 3}


def test_where_few_images_tell_nothing_apart_the_least_divergence_does():
    budget = ByteBudget("max_flash_bytes", 12, lambda layer, bits: bits)
    rows = [row("a", 4, 0.0, 0.02), row("b", 4, 0.0, 0.01)]
    assert budget.widths({"a": 8, "b": 8}, rows) == {"a": 8, "b": 4}
    assert budget.widths({"a": 8, "b": 8}, [row("a", 4, 0.0, 0.02), row("b", 4, 0.7, 0.01)]) == {"a": 4, "b": 8}
