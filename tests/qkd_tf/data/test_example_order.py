"""One order for examples that come in another one each time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkd_tf.data.example_order import by_content
from qkd_tf.experiment import ExperimentError


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12), st.randoms())
def test_any_two_orders_of_the_same_examples_become_one(examples, chance):
    sorted_ones = []
    for _ in range(2):
        chance.shuffle(examples)
        values, labels = (np.array(part) for part in zip(*examples, strict=True))
        order = by_content(values, labels, [(values[:5][::-1], labels[:5][::-1]), (values[5:], labels[5:])], "train")
        sorted_ones.append([(values[index], labels[index]) for index in order])
    assert sorted_ones[0] == sorted_ones[1] and sorted(sorted_ones[0]) == sorted(examples)


@pytest.mark.parametrize(
    "again",
    [[], [([0, 1], [0, 1])], [([0, 1, 1], [0, 1, 1])], [([0, 1, 2], [0, 1, 0])], [([0, 1, 2, 2], [0, 1, 1, 1])]],
)
def test_other_examples_are_refused(again):
    values, labels = np.arange(3), np.array([0, 1, 1])
    batches = [tuple(map(np.array, batch)) for batch in again]
    with pytest.raises(ExperimentError, match="test: the set has other examples each time, so no run could be rep"):
        by_content(values, labels, batches, "test")
