"""What to do about a file that was refused, by what its failures say."""

from collections.abc import Mapping
from typing import Any

LESS_ACCURATE = "in floating point by more than chance"
# Of a run that is not known.
RETRAIN = "train for more epochs, or with more bits, those of activations first, because they cost no flash"
# (words of a failure, what to do), in the order in which they are looked for
REMEDIES = (
    (
        "and did not:",
        "the runtime that judges has to run the file: fix the reason in its line, or export for another --target",
    ),
    (
        " of the integers that ",
        "the kernels of this computer compute other integers than predicted: export on x86-64, and if the file is "
        "refused there too, report it with verification.json",
    ),
    (
        "the bytes are not packed",
        "export the run again with this version",
    ),
    (
        " of its own steps, and LiteRT's ",
        "training left the scales of this layer out of proportion: train longer or at a lower rate, or give the layer "
        "more bits (--bits_rule)",
    ),
    (
        "does not fit int32 steps",
        "training left the scales of this layer out of proportion: train longer or at a lower rate, or give the layer "
        "more bits (--bits_rule)",
    ),
    (
        "no operator for ",
        "report it: the pre-flight should have refused the layer",
    ),
    (
        "give different logits on TFLM",
        "report it; another --target writes no such file",
    ),
)
OTHERWISE = (
    "this is not the file that the export of this run writes: give the handoff of the run that it comes from, or "
    "export this run again and change nothing in the file"
)


def remedies(verification: Mapping[str, Any]) -> list[str]:
    """What to do about a refused file, most urgent first; each remedy once, however many failures ask for it.

    Args:
      verification: as in verification.json; "more_accurate" is what `Course` advises, if the run is known.
    """
    rows = ((LESS_ACCURATE, verification.get("more_accurate", RETRAIN)), *REMEDIES)
    found = {
        next((number for number, (words, _) in enumerate(rows) if words in failure), len(rows))
        for failure in verification["failures"]
    }
    every = [remedy for _, remedy in rows] + [OTHERWISE]
    return list(dict.fromkeys(every[number] for number in sorted(found)))
