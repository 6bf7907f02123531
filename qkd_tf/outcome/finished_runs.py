"""The results of finished and exported runs, from their JSON files."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from qkd_tf.console.counting import counted
from qkd_tf.contract.gate import is_only_less_accurate
from qkd_tf.contract.resuming import runs_in, to_its_end
from qkd_tf.experiment import ExperimentError, require

# Flags that decide how examples are read, and which of them are the test split: the seed does not.
READING = ("resize", "image_size", "image_channels", "test_split", "test_fraction", "signals", "max_eval_images")
LABELS, COPY, RECORD = "test_labels.npy", "test_images.npy", "test_split.json"  # of a handoff, as it names them


@dataclasses.dataclass(frozen=True)
class Run:
    """The results of one finished and exported run.

    Attributes:
      label: short name, unique among the runs that are compared.
      data: name of what it was tested on; runs with equal `fingerprint` were tested on the same images.
      top1: top-1 of the file on its judge, in percent; `full_precision` that of the float student, if known.
      bits: such as "W4A4", with "*" if rules give single layers others.
      num_bytes: size of model.tflite.
      milliseconds: time for an image on the `runtime` that judged, on the exporting machine.
      arena: bytes that TFLM allocated, if it ran.
      machine: the one on which the run was trained.
      passed: whether the file was accepted.
      deflated, true_width, flash: bytes of the file as transferred, of the kernels alone at their trained bit widths,
        and of flash that a microcontroller needs besides TFLM; None if the export did not record them.
      is_less_accurate: whether it was refused for its accuracy alone, although it is what was trained.
      read_as: flag -> its value, of those that decide how examples are read.
    """

    label: str
    student: str
    data: str
    fingerprint: tuple
    bits: str
    num_bytes: int
    top1: float
    full_precision: float | None
    milliseconds: float
    arena: int | None
    runtime: str
    machine: str
    passed: bool
    deflated: int | None = None
    true_width: int | None = None
    flash: int | None = None
    is_less_accurate: bool = False
    read_as: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load(folders: Sequence[str]) -> list[Run]:
    """The runs in these folders, in their order.

    Raises:
      ExperimentError: a folder is not a finished and exported run, or is given twice.
    """
    paths = [pathlib.Path(folder) for folder in folders]
    require(len(paths) > 0, "no run is named; give folders of finished runs, such as runs/demo")
    twice = [folder for folder, path in zip(folders, paths, strict=True) if _places(paths).count(path.resolve()) > 1]
    require(not twice, f"{twice[0] if twice else ''} is given twice; give each run once")
    return [_load(path, label) for path, label in zip(paths, _labels(paths), strict=True)]


def _places(paths: list[pathlib.Path]) -> list[pathlib.Path]:
    return [path.resolve() for path in paths]


def _labels(paths: list[pathlib.Path]) -> list[str]:
    """Names of the folders, with parent folders as far as needed to tell them apart."""
    parts = [path.parts for path in _places(paths)]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def _load(path: pathlib.Path, label: str) -> Run:
    require(path.is_dir(), f"{path} is not a folder; give folders of finished runs, such as runs/demo")
    held = [str(run) for run in runs_in(path)]
    require(not held, f"{path} is a folder of {counted(len(held), 'run')}; give the runs themselves: {' '.join(held)}")
    results = _json(path / "results.json", f"{path} is not a finished run; {to_its_end(path)}")
    again = f"{path} is not exported; run python -m tflite_export --run_dir={path} first"
    verification = _json(path / "export" / "verification.json", again)
    try:
        return _run(label, results, verification, _tested_on(path / "handoff") or _named(results["data"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ExperimentError(
            f"{path} has no {error} in results.json or verification.json: its file was not run, or another version "
            f"wrote it; run python -m tflite_export --run_dir={path} again"
        ) from None


def _json(path: pathlib.Path, otherwise: str) -> dict:
    require(path.is_file(), f"{otherwise} ({path.name} is missing)")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExperimentError(f"{path} cannot be read: {error}; {otherwise.partition('; ')[2]}") from None


def _tested_on(handoff: pathlib.Path) -> tuple | None:
    """Identifies pixels and labels of a test split, whatever its name and the training data; None if the handoff is
    gone or from a version that did not keep this.
    """
    try:
        files = json.loads((handoff / "manifest.json").read_text(encoding="utf-8"))["files"]
        if COPY in files:
            return files[COPY], files[LABELS]
        return (json.loads((handoff / RECORD).read_text(encoding="utf-8"))["content_sha256"],)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _named(data: dict) -> tuple:
    """The same from results.json; this also depends on the batch size with which the split was digested."""
    return tuple(data.get(key) for key in ("name", "num_test", "digested", "test_sha256"))


def _run(label: str, results: dict, verification: dict, fingerprint: tuple) -> Run:
    data, asked = results["data"], results["experiment"]["quantization"]
    judged = verification["runtimes"][verification["judge"]]
    return Run(
        label=label,
        student=results["experiment"]["student"]["name"],
        data=f"{data['name']}, {data['num_test']:,} test images",
        fingerprint=fingerprint,
        bits=f"W{asked['weight_bits']}A{asked['activation_bits']}"
        + "*" * bool(asked.get("bits_rule") or asked.get("found_bits")),
        num_bytes=verification["file"]["bytes"],
        top1=judged.get("accuracy", judged)["top1"],  # earlier versions had that of the images that ran
        full_precision=(results.get("full_precision") or {}).get("test_top1"),
        milliseconds=1000 * judged["median_seconds"],
        arena=verification["runtimes"].get("tflm", {}).get("arena_bytes"),
        runtime=judged["title"],
        machine=f"{results['machine']['platform']}, {results['machine']['cores']} cores",
        passed=verification["passed"],
        deflated=verification["file"].get("deflated_bytes"),
        true_width=verification.get("weights", {}).get("true_width_bytes"),
        flash=verification.get("flash_bytes"),
        is_less_accurate=is_only_less_accurate(verification),
        read_as={name: value for name, value in results["experiment"].get("data", {}).items() if name in READING},
    )


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that were tested on the same images, together: only their accuracies can be compared."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        found.setdefault(run.fingerprint, []).append(run)
    return list(found.values())


def title(group: Sequence[Run]) -> str:
    """What a group's runs were tested on, by all names that they use for it."""
    return " = ".join(dict.fromkeys(run.data for run in group))
