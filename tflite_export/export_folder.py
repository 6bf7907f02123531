"""The folder of an export, and which target the files in a folder are for."""

import dataclasses
import json
import pathlib

from qkd_tf.contract.targets import TARGETS

VERIFICATION = "verification.json"


@dataclasses.dataclass(frozen=True)
class ExportFolder:
    """The folder for an export's files; files exported for another target are never touched.

    A run's first target has export/ and report.html. Any further one has export-TARGET/ and report-TARGET.html.

    Attributes:
      path: folder of model.tflite, labels.txt, verification.json and the target's bundle.
      report: the report of that export.
    """

    path: pathlib.Path
    report: pathlib.Path

    @classmethod
    def of(cls, run_dir: pathlib.Path, target: str | None) -> "ExportFolder":
        """The folder of `target`, the name of a row of TARGETS, in a run folder."""
        taken = target_of(run_dir / "export")
        suffix = "" if taken in (None, target) else f"-{target}"
        return cls(run_dir / f"export{suffix}", run_dir / f"report{suffix}.html")


def target_of(folder: pathlib.Path) -> str | None:
    """The row of TARGETS named in a folder's verification.json; None if there is none that can be read."""
    try:
        title = json.loads((folder / VERIFICATION).read_text(encoding="utf-8"))["target"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return target_titled(title)


def target_titled(title: str) -> str | None:
    """The row of TARGETS with a title from verification.json; None if no row has it."""
    return next((name for name, target in TARGETS.items() if target.title == title), None)
