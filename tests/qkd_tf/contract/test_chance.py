"""Chance by hand, and against probabilities summed as fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkd_tf.contract.chance import chance, paired


@pytest.mark.parametrize(
    "worse, better, p", [(0, 0, 1.0), (1, 0, 0.5), (0, 1, 1.0), (10, 0, 2.0**-10), (5, 5, 0.623046875)]
)
def test_chance_at_break_points(worse, better, p):
    assert chance(worse, better) == p


@given(st.integers(0, 60), st.integers(0, 60))
def test_chance_is_the_tail_of_the_binomial_distribution(worse, better):
    tosses = worse + better
    tail = sum(Fraction(math.comb(tosses, heads), 2**tosses) for heads in range(worse, tosses + 1))
    assert chance(worse, better) == float(tail)


def test_chance_of_many_images_is_a_number():
    assert chance(25_000, 25_000) == pytest.approx(0.5, abs=0.003)
    assert chance(30_000, 20_000) == 0.0


def test_images_that_one_alone_gets_right_are_counted():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    found = paired(np.array([0, 1, 1, 1, 1, 2, 0, 0]), np.array([0, 0, 0, 0, 0, 2, 0, 1]), labels)
    assert found == {
        "num_images": 8,
        "top1": 25.0,
        "student_top1": 50.0,
        "only_file_right": 1,
        "only_student_right": 3,
        "p": 5 / 16,  # 3 or 4 heads of 4
    }


def test_an_image_of_many_answers_counts_once():
    """A map of two answers: the student has one more right on the first image, as many on the second."""
    labels = np.array([[0, 0], [1, 1]])
    file, student = np.array([[0, 1], [1, 0]]), np.array([[0, 0], [0, 1]])
    found = paired(file, student, labels)
    assert (found["only_student_right"], found["only_file_right"], found["num_images"]) == (1, 0, 2)
    assert (found["top1"], found["student_top1"]) == (50.0, 75.0)


def test_one_label_serves_a_whole_map():
    found = paired(np.array([[[0, 1]], [[1, 1]]]), np.array([[[0, 0]], [[1, 1]]]), np.array([[[0]], [[1]]]))
    assert (found["only_student_right"], found["only_file_right"], found["top1"]) == (1, 0, 75.0)
