"""Side by side: kinds take turns, so that whatever else the machine does falls on all of them."""

import statistics
import time
from collections.abc import Callable, Mapping


def measure(kinds: Mapping[str, Callable[[], object]], num_turns: int, calls_a_turn: int) -> dict[str, list[float]]:
    """Median seconds of a call by kind, one number a turn. The first call of a turn, with cold caches, is left out."""
    medians = {kind: [] for kind in kinds}
    for _ in range(num_turns):
        for kind, call in kinds.items():
            seconds = []
            for _ in range(calls_a_turn + 1):
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
            medians[kind].append(statistics.median(seconds[1:]))
    return medians


def best(kinds: Mapping[str, Callable[[], object]], num_turns: int, calls_a_turn: int) -> dict[str, float]:
    """Least seconds of a call by kind: on a machine that others use, the one that they disturbed least."""
    least = dict.fromkeys(kinds, float("inf"))
    for _ in range(num_turns):
        for kind, call in kinds.items():
            for _ in range(calls_a_turn):
                start = time.perf_counter()
                call()
                least[kind] = min(least[kind], time.perf_counter() - start)
    return least


def ratio(medians: Mapping[str, list[float]], kind: str, *base: str) -> float:
    """Median over the turns of kind / sum of base, both of the same turn."""
    sums = [sum(turn) for turn in zip(*(medians[name] for name in base), strict=True)]
    return statistics.median(own / other for own, other in zip(medians[kind], sums, strict=True))
