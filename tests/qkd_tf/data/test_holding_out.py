import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from qkd_tf.data.holding_out import foremost, stratified

WAYS = {"foremost": foremost, "stratified": stratified}
LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40).map(np.array)


@pytest.mark.parametrize("choose", WAYS.values(), ids=WAYS)
@hypothesis.given(LABELS, st.floats(0.0, 0.99))
def test_a_share_is_taken_and_no_class_loses_its_last_example(choose, labels, fraction):
    taken = choose(labels, fraction)
    spare = len(labels) - len(np.unique(labels))
    assert taken.sum() == min(round(len(labels) * fraction), spare or len(labels))
    if spare:
        assert set(labels[~taken]) == set(labels)


def test_the_foremost_are_the_first_that_are_not_the_first_of_their_class():
    assert foremost(np.array([0, 0, 1, 0, 1]), 0.4).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("choose", WAYS.values(), ids=WAYS)
def test_of_classes_with_one_example_each_some_are_taken_all_the_same(choose):
    assert choose(np.arange(10), 0.2).sum() == 2
