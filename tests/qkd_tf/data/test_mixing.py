import numpy as np
import pytest

from qkd_tf.data.mixing import is_mixed

IN_TURNS = np.arange(1_000) % 10


@pytest.mark.parametrize(
    "labels, mixed",
    [
        (IN_TURNS, True),
        (np.random.default_rng(0).permutation(IN_TURNS), True),
        (np.sort(IN_TURNS), False),
        (np.concatenate([IN_TURNS[:500] % 5, 5 + IN_TURNS[500:] % 5]), False),  # half of the classes, then the others
        (np.arange(1_000), True),  # classes of one example: by chance, too, a part has others than the whole
    ],
)
def test_labels_are_mixed_where_a_part_in_a_row_has_the_classes_of_all(labels, mixed):
    assert is_mixed(labels, 100) == mixed


def test_the_whole_is_like_itself():
    assert is_mixed(np.sort(IN_TURNS), 1_000)
