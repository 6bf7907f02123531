"""Batch size and epochs of a first training."""

import pytest

from qkd_tf import experiment
from qkd_tf.contract.targets import TARGETS
from qkd_tf.proposal import schedule
from qkd_tf.proposal.proposal import BITS


@pytest.mark.parametrize(
    "num_train, num_values, expected",
    [
        (3, 1_000, 2),  # no more than there are
        (100, 1_000, 8),  # BatchNorm
        (540, 1_000, 32),  # 16 steps or more
        (1_000_000, 1_000, 128),  # the default
        (1_000_000, 20_000_000, 16),  # 4 GiB of three copies in float32
        (1_000_000, 10**9, 1),
    ],
)
def test_batch_fits_examples_and_memory(num_train, num_values, expected):
    assert schedule.batch_size(num_train, num_values) == expected


@pytest.mark.parametrize("num_steps, expected", [(1, [30, 100]), (33, [30, 100]), (66, [15, 50]), (10_000, [3, 10])])
def test_epochs_get_fewer_as_they_get_longer(num_steps, expected):
    assert schedule.epochs(["self_studying", "co_studying"], num_steps) == expected


def test_every_phase_and_target_has_its_words():
    assert tuple(schedule.PHASES) == experiment.PHASES
    assert tuple(BITS) == tuple(TARGETS)
