"""The accuracy that a file must reach, compared with the student in floating point."""

import dataclasses
from collections.abc import Mapping
from typing import Any

ROUNDING = 1e-9  # percent; shares of the same images are equal in spite of floating point
SHAKY_P = 0.1  # below which an accepted file is said to be perhaps worse than the student


@dataclasses.dataclass(frozen=True)
class Gate:
    """The accuracy that a file must reach. In addition, every integer must be the predicted one.

    On the target's judge, the file is compared with the quantized student in floating point. It is refused if its top-1
    is more than `max_top1_difference` points lower and two equally good networks would differ this much with a
    probability below `min_accuracy_p`. `chance` has the test.
    """

    max_top1_difference: float = 0.2
    min_accuracy_p: float = 0.001

    def finds_worse(self, accuracy: Mapping[str, Any]) -> bool:
        """Whether a file with the accuracy that `chance.paired` found is refused."""
        return self._is_lower(accuracy) and accuracy["p"] < self.min_accuracy_p

    def doubt(self, accuracy: Mapping[str, Any]) -> str:
        """What to say about a file that is accepted but may be worse; "" if there is no such doubt."""
        if not self._is_lower(accuracy) or not self.min_accuracy_p <= accuracy["p"] < SHAKY_P:
            return ""
        drop = accuracy["student_top1"] - accuracy["top1"]
        return (
            f"accepted, but {drop:.2f} points below the student in floating point "
            f"(p = {accuracy['p']:.2g}; refused below {self.min_accuracy_p:g})"
        )

    def _is_lower(self, accuracy: Mapping[str, Any]) -> bool:
        return accuracy["student_top1"] - accuracy["top1"] > self.max_top1_difference + ROUNDING


def counts(accuracy: Mapping[str, Any]) -> str:
    """What the test found, for people."""
    return (
        f"of {accuracy['num_images']:,} images {accuracy['only_student_right']:,} are right only in floating point and "
        f"{accuracy['only_file_right']:,} only in the file, p = {accuracy['p']:.2g}"
    )


def is_only_less_accurate(verification: Mapping[str, Any]) -> bool:
    """Whether a file was refused for its accuracy alone: it is what was trained, every integer is as predicted.

    Args:
      verification: as in verification.json.
    """
    accuracy = verification.get("runtimes", {}).get(verification.get("judge"), {}).get("accuracy")
    if verification["passed"] or accuracy is None or len(verification["failures"]) != 1:
        return False
    return Gate(**verification["gate"]).finds_worse(accuracy)
