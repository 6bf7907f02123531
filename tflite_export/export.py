"""The export, in order: integers handed over, graph, file, proof, report."""

import json
import pathlib
import shutil
from collections.abc import Sequence

from qkd_tf import __version__
from tflite_export import report
from tflite_export.compress import compress
from tflite_export.convert import convert
from tflite_export.graph import IntegerGraph
from tflite_export.load import ExportError, Handoff, load_handoff
from tflite_export.read_back import read_back
from tflite_export.rebuild import rebuild
from tflite_export.runtimes import RUNTIMES, absence
from tflite_export.targets import Target, store
from tflite_export.verification import Gate, examine, verify_compressed


def export(
    run_dir: pathlib.Path,
    target: Target,
    weight_storage: str = "auto",
    input_type: str | None = None,
    gate: Gate | None = None,
    runtimes: Sequence[str] = tuple(RUNTIMES),
) -> dict:
    """Writes export/model.tflite, export/labels.txt, export/verification.json and report.html.

    For microcontrollers also export/model.compressed.tflite, where TFLM is installed to prove it.

    Returns:
      The verification, as in verification.json.

    Raises:
      ExportError: no finished training run there, or a student that cannot become integer.
    """
    handoff = load_handoff(run_dir / "handoff")
    if not (run_dir / "results.json").exists():
        raise ExportError(f"{run_dir} has no results.json; run python -m qkd_tf.train to its end first")
    rebuilt = rebuild(handoff, input_type or target.input_type)
    graph = store(rebuilt, weight_storage, target)
    content = convert(graph, description=f"qkd_tf {__version__}, {run_dir.name}")
    verification, classes = examine(content, graph, handoff, gate or Gate(), target, runtimes)
    files = {"model.tflite": content}
    if target.compressed and verification["passed"]:
        compressed = _compress(rebuilt, content, handoff, verification)
        files |= {"model.compressed.tflite": compressed} if compressed else {}
    folder = run_dir / "export"
    folder.mkdir(exist_ok=True)
    (folder / "model.compressed.tflite").unlink(missing_ok=True)  # one of an earlier export
    for name, data in files.items():
        (folder / name).write_bytes(data)
    shutil.copy(run_dir / "handoff" / "labels.txt", folder)
    (folder / "verification.json").write_text(json.dumps(verification, indent=1) + "\n")
    report.write(run_dir, verification, classes)
    return verification


def _compress(graph: IntegerGraph, plain: bytes, handoff: Handoff, verification: dict) -> bytes | None:
    """The lookup-table file, and in `verification` what became of it; None where there is none to be had."""
    if reason := absence("tflm"):
        verification["notes"].append(f"no lookup-table file was written: {reason}")
        return None
    unpacked = convert(graph, description=f"qkd_tf {__version__}, compressed")
    content, index_bits = compress(read_back(unpacked), unpacked)
    if not index_bits:
        verification["notes"].append("no lookup-table file was written: no kernel becomes smaller by it")
        return None
    if len(content) >= len(plain):
        verification["notes"].append(
            f"no lookup-table file was written: it would have {len(content):,} bytes, model.tflite has {len(plain):,}"
        )
        return None
    verification["compressed"] = {"index_bits": index_bits, **verify_compressed(content, plain, handoff)}
    if not verification["compressed"]["passed"]:
        verification["passed"] = False
        verification["failures"].append("the lookup-table file gives other logits than the plain one on TFLM")
    return content
