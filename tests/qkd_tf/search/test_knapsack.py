"""The knapsack against all choices there are."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from qkd_tf.search.knapsack import Option, choose

OPTIONS = st.builds(
    Option,
    size=st.integers(0, 48).map(lambda bits: bits / 8),
    losses=st.tuples(st.integers(-2, 9), st.integers(0, 2)),
)
ITEMS = st.lists(st.lists(OPTIONS, min_size=1, max_size=4), max_size=5)


def brute_force(items, room):
    """The same by looking at every choice."""

    def order(indices):
        options = [item[index] for item, index in zip(items, indices, strict=True)]
        sums = [sum(option.losses[place] for option in options) for place in (0, 1)]
        return *sums, sum(option.size for option in options), indices

    choices = map(order, itertools.product(*(range(len(item)) for item in items)))
    return min((choice for choice in choices if choice[2] <= room), default=(None,))[-1]


@given(items=ITEMS, room=st.integers(0, 160).map(lambda bits: bits / 8))
@settings(max_examples=200, deadline=None)
def test_it_is_the_best_of_all_choices_and_the_same_again(items, room):
    found = choose(items, room)
    assert found == brute_force(items, room) == choose(items, room)


def test_the_optimum_is_found_where_the_least_loss_a_byte_first_is_not_it():
    """Greedy takes the first item down (1 a byte), then lacks a byte and takes the second down too: 6 + 9."""
    items = [[Option(10, (0,)), Option(4, (6,))], [Option(10, (0,)), Option(3, (9,))]]
    assert choose(items, 13) == (0, 1)
    assert choose(items, 14) == (1, 0) and choose(items, 7) == (1, 1) and choose(items, 20) == (0, 0)
    assert choose(items, 6) is None


def test_of_equal_losses_the_least_second_one_is_taken_even_where_it_is_larger():
    items = [[Option(8, (0, 0)), Option(4, (0, 4)), Option(2, (0, 6))]]
    assert choose(items, 8) == (0,) and choose(items, 7) == (1,)


def test_fifty_layers_are_a_matter_of_moments():
    """4^54 choices, of which the front keeps some thousands; of two losses it keeps more."""
    rng = random.Random(5)
    items = []
    for _ in range(54):
        size = rng.choice([64, 128, 256, 512]) * rng.choice([64, 128, 256, 576])
        losses = sorted(rng.randrange(0, 2000) for _ in range(3))
        items.append(
            [Option(size, (0, 0))] + [Option(size * b / 8, (v, 8 - b)) for b, v in zip((4, 3, 2), losses, strict=True)]
        )
    room = 0.45 * sum(options[0].size for options in items)
    found = choose(items, room)
    assert sum(options[index].size for options, index in zip(items, found, strict=True)) <= room
