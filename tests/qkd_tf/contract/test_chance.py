"""Chance by hand, and against probabilities summed as fractions."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkd_tf.contract.chance import chance


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
