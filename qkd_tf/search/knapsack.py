"""The multiple-choice knapsack: one option of each item, the least loss that has room."""

import dataclasses
import operator
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Option:
    """One choice for an item.

    Attributes:
      size: what it takes of the room; at least 0. Multiples of 1/8, as bytes of whole bits are, add up exactly.
      losses: what it costs in value, in whole units, so that sums are exact. Sums of the first decide, those of the
        next between choices that are equal by then. All options have as many.
    """

    size: float
    losses: tuple[int, ...]


def choose(items: Sequence[Sequence[Option]], room: float) -> tuple[int, ...] | None:
    """Index of the option of each item: of all choices that have room the one of least loss.

    Ties go to the least size, then to the options that come first: the answer is always the same. It is exact: item
    after item, every choice is kept that is not both larger and worse than another (dynamic programming over dominated
    states; Nemhauser and Ullmann, "Discrete Dynamic Programming and Capital Allocation", Management Science 15, 1969).

    Returns:
      None where even the smallest options have no room.
    """
    needed_later = sum(min(option.size for option in options) for options in items)
    num_losses = len(items[0][0].losses) if items else 0
    front: list[tuple[float, tuple[int, ...], tuple[int, ...]]] = [(0.0, (0,) * num_losses, ())]
    for options in items:
        needed_later -= min(option.size for option in options)
        grown = sorted(
            (size + option.size, tuple(map(operator.add, losses, option.losses)), (*chosen, index))
            for size, losses, chosen in front
            for index, option in enumerate(options)
            if size + option.size + needed_later <= room
        )
        front = []
        for state in grown:  # from the smallest: a larger one is kept for a lower loss alone
            if not front or state[1] < front[-1][1]:
                front.append(state)
    return front[-1][2] if front else None
