"""Signs of a collapsing student, noted after each epoch, from its intervals and its answers."""

from collections.abc import Sequence

import numpy as np

LEFT = 10.0  # times as large as at the phase's start, or as small: no trained interval that worked has gone so far
NAMED = 3


def notes(
    tensors: Sequence[str], first: Sequence[float], before: Sequence[float], now: Sequence[float], logits: np.ndarray
) -> list[str]:
    """A line for each thing that a user should know after an epoch; none if all is well.

    Args:
      tensors: names of the tensors to which the intervals belong, for messages.
      first, before, now: intervals at the start of the phase, an epoch ago and now. What had left its range an epoch
        ago was noted then.
      logits: [N, ..., K], for the validation images.
    """
    lines = []
    told = set(_left(first, before))
    new = [index for index in _left(first, now) if index not in told]
    if new:
        worst = sorted(new, key=lambda index: -_distance(first[index], now[index]))
        named = ", ".join(f"{tensors[i]} from {first[i]:.2g} to {now[i]:.2g}" for i in worst[:NAMED])
        more = f" and {len(new) - NAMED} more" if len(new) > NAMED else ""
        lines.append(
            f"note: intervals changed more than tenfold: {named}{more}; lower --learning_rates or "
            "--interval_max_change to a tenth"
        )
    classes = np.unique(np.argmax(logits, axis=-1))
    if len(logits) > 1 and len(classes) == 1:
        lines.append(
            f"note: every validation image is given class {classes[0]}; if the student was better before training, "
            "lower --learning_rates to a tenth, otherwise check pixels and labels"
        )
    return lines


def _left(first: Sequence[float], now: Sequence[float]) -> list[int]:
    return [i for i, (start, interval) in enumerate(zip(first, now, strict=True)) if _distance(start, interval) > LEFT]


def _distance(first: float, now: float) -> float:
    return max(now / first, first / now)
