"""What an export returns in Python."""

import pathlib
from typing import Any


class Exported(dict[str, Any]):
    """The verification, as in verification.json, and its file.

    Attributes:
      tflite: the file; do not use it unless it passed.
    """

    def __init__(self, verification: dict[str, Any], tflite: pathlib.Path):
        super().__init__(verification)
        self.tflite = tflite

    @property
    def passed(self) -> bool:
        """Whether the file is what was trained."""
        return bool(self["passed"])

    @property
    def top1(self) -> float | None:
        """Top-1 of the file on the test split, on the target's judge, in percent; None if it did not run."""
        return self.get("runtimes", {}).get(self.get("judge"), {}).get("accuracy", {}).get("top1")

    def __repr__(self) -> str:
        """One line, as a notebook shows it."""
        if not self.passed:
            return f"Exported({str(self.tflite)!r}, refused: {'; '.join(self['failures'][:1])})"
        return (
            f"Exported({str(self.tflite)!r}, {self['file']['bytes']:,} bytes, proven: top-1 {self.top1:.2f} % of "
            f"{self['num_images']:,} test images on {self['judge']})"
        )
