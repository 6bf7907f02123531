"""The multiple-choice knapsack: one option for each item, with the smallest loss that fits."""

import dataclasses
import operator
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Option:
    """One choice for an item.

    Attributes:
      size: the room that it takes, at least 0. Multiples of 1/8, such as bytes of whole bits, add up exactly.
      losses: its losses in whole units, so that sums are exact. Sums of the first decide, those of the next between
        equal choices. All options have equally many.
    """

    size: float
    losses: tuple[int, ...]


def choose(items: Sequence[Sequence[Option]], room: float) -> tuple[int, ...] | None:
    """Index of the option for each item: of all choices that fit, the one with the smallest loss.

    Ties go to the smallest size, then to the first options, so the answer is always the same. It is exact: item by
    item, it keeps every choice that is not both larger and worse than another (dynamic programming over dominated
    states; Nemhauser and Ullmann, "Discrete Dynamic Programming and Capital Allocation", Management Science 15, 1969).

    Returns:
      None if even the smallest options do not fit.
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
