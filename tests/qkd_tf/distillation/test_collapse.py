"""What is told of a student that falls apart, and that nothing is told of one that does not."""

import numpy as np
import pytest

from qkd_tf.distillation.collapse import NAMED, notes

MIXED = np.eye(3)


def told(first, before, now, logits=MIXED):
    return notes([f"t{i}" for i in range(len(first))], first, before, now, logits)


@pytest.mark.parametrize("factor", [1.0, 9.9, 1 / 9.9])
def test_within_ten_times_nothing_is_said(factor):
    assert told([0.1, 2.0], [0.1, 2.0], [0.1, 2.0 * factor]) == []


@pytest.mark.parametrize("factor", [10.1, 1 / 10.1, 1e-6, 2e7])
def test_beyond_that_the_interval_is_named_with_both_values_and_what_to_do(factor):
    (line,) = told([0.1, 2.0], [0.1, 2.0], [0.1, 2.0 * factor])
    assert f"t1 from 2 to {2 * factor:.2g};" in line and "t0" not in line and "--learning_rates" in line


def test_each_is_named_once_a_phase():
    assert told([1.0, 1.0], [20.0, 1.0], [30.0, 1.0]) == []
    (line,) = told([1.0, 1.0], [20.0, 1.0], [30.0, 0.01])
    assert "t1" in line and "t0" not in line
    assert len(told([1.0], [1.0], [30.0])) == 1  # one that came back may leave again


def test_the_worst_are_named_and_others_counted():
    (line,) = told([1.0] * 6, [1.0] * 6, [11.0, 12.0, 13.0, 1 / 14, 15.0, 1.0])
    assert NAMED == 3 and "t4 from" in line and "t3 from" in line and "t2 from" in line and "and 2 more;" in line


def test_one_class_for_all_images_is_told():
    (line,) = told([1.0], [1.0], [1.0], np.array([[0.0, 2.0], [1.0, 3.0]]))
    assert "every validation image is given class 1;" in line


def test_one_image_has_one_class_and_maps_of_logits_are_read():
    assert told([1.0], [1.0], [1.0], MIXED[:1]) == []
    assert told([1.0], [1.0], [1.0], np.stack([MIXED, MIXED])) == []
    assert len(told([1.0], [1.0], [1.0], np.ones([2, 4, 4, 3]))) == 1
