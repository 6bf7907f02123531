"""What differs from run to run of the same code is not in a digest; all else is."""

from benchmarks.file_digests import steady


def test_seconds_and_versions_are_left_out_wherever_they_stand():
    found = {"seconds": 1.5, "runtimes": {"tflm": {"median_seconds": 0.1, "top1": 90.0}}, "rows": [{"version": "1"}, 2]}
    assert steady(found) == {"runtimes": {"tflm": {"top1": 90.0}}, "rows": [{}, 2]}


def test_a_number_that_counts_changes_it():
    assert steady({"top1": 90.0}) != steady({"top1": 90.1})
