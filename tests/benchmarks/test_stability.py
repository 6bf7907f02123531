"""A sample of the stability campaign: what fell apart without a bound on intervals."""

import pytest

from benchmarks import stability


@pytest.mark.slow
def test_default_rate_leaves_trained_intervals_near_their_calibration():
    """Without a bound the first kernel's interval grew 361 times here, and every picture was given one class."""
    row = stability.measure("plain", "w8a8", rate=0.01, batch=32, seed=0, max_change=0.02)
    assert row["at_floor"] == 0
    assert max(row["growth"], row["shrinkage"]) < stability.LEFT
    assert row["num_classes"] > 1 and row["top1"] > 80


def test_summary_has_a_line_for_each_bound():
    run = {"rate": 0.01, "at_floor": 0, "growth": 3.0, "shrinkage": 1.0, "num_classes": 10, "top1": 90.0}
    worse = {**run, "at_floor": 2, "shrinkage": 1e5, "num_classes": 1, "top1": 10.0}
    rows = [
        {**run, "max_change": 0.02},
        {**worse, "max_change": 0.0},
        {"rate": 0.01, "max_change": 0.0, "refused": "why"},
    ]
    assert stability.summary(rows).splitlines()[2:] == [
        "| none | 1 | 1 | 1 | 1 | 1e+05 | 10.0 |",
        "| 0.02 | 1 | 0 | 0 | 0 | 3 | 90.0 |",
    ]
