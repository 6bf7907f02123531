"""The export, in order: handoff, graph, file, proof, report."""

import json
import os
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np

from qkd_tf import __version__
from qkd_tf.console.examples import speaking_of_examples
from qkd_tf.console.nearest import meant
from qkd_tf.contract.course import Course
from qkd_tf.contract.gate import Gate
from qkd_tf.contract.targets import INPUT_TYPES, TARGETS, WEIGHT_STORAGES
from qkd_tf.process.borrowed_process import borrowed
from qkd_tf.storage import durable
from qkd_tf.storage.folder_lock import locked
from tflite_export.bundles import ethos_u_bundle, micro_bundle, phone_bundle
from tflite_export.bundles.bundle import Delivery
from tflite_export.bundles.vela import Vela
from tflite_export.export_error import ExportError
from tflite_export.export_folder import VERIFICATION, ExportFolder
from tflite_export.exported import Exported
from tflite_export.finished_run import diagnosis_of, results_of
from tflite_export.flatbuffer.compress import compress, compressible, flash_bytes
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store, unpacked
from tflite_export.inference.runtimes import RUNTIMES, absence, check_names
from tflite_export.load import Handoff, load_handoff
from tflite_export.proof import room
from tflite_export.proof.cautions import cautions
from tflite_export.proof.verdict import print_verdict
from tflite_export.proof.verification import examine, verify_compressed
from tflite_export.rebuilding.rebuild import rebuild
from tflite_export.reporting import report

BUNDLES = {"phone": phone_bundle, "microcontroller": micro_bundle, "ethos_u": ethos_u_bundle}  # by target


@borrowed()
def export(
    run_dir: str | os.PathLike,
    target: str | None = None,
    weight_storage: str | None = None,
    input_type: str | None = None,
    gate: Gate | None = None,
    runtimes: Sequence[str] = tuple(RUNTIMES),
    vela: Vela | None = None,
) -> Exported:
    """Writes the .tflite of a finished run, verifies it and prints the verdict.

    Writes export/model.tflite, export/labels.txt, export/verification.json and report.html. If export/ holds the files
    of another target, they go to export-TARGET/ and report-TARGET.html (`ExportFolder`). A file that passed gets the
    bundle of its target, in a folder beside it.

    For microcontrollers it also writes model.compressed.tflite, if TFLM is installed to check it, and if file and
    decoder take less flash. verification.json is removed first and written last: where it exists, it describes the
    files beside it. The settings of the process are as before when the call returns or raises.

    Args:
      run_dir: folder of the run, or what `qkd_tf.fit` returned.
      target: a row of TARGETS; None for the training's target.
      weight_storage: one of WEIGHT_STORAGES; "auto" is the target's default. None for the training's, or "auto" for
        another target.
      input_type: "uint8" takes pixels, "int8" takes pixel - 128; None for the target's default.
      gate: how far the file may fall below the student in floating point; None for the default.
      runtimes: rows of RUNTIMES that run the file; the target's judge is always one of them.
      vela: how to compile a file for an Ethos-U NPU; None for other targets, or for Vela's defaults.

    Returns:
      The verification, as in verification.json; `passed` says whether the file, `tflite`, is what was trained.

    Raises:
      ExportError: there is no finished run, or the student cannot become integer.
      OSError: the run folder is in use, or cannot be written.
    """
    if not isinstance(run_dir, str | os.PathLike):
        raise ExportError(f"run_dir is of type {type(run_dir).__name__}; give what fit returned, or a run's folder")
    run_dir = pathlib.Path(run_dir)
    results = results_of(run_dir)
    trained_for = results["experiment"]["target"]
    name = target or trained_for["target"]
    if name not in TARGETS:
        raise ExportError(f"unknown target {name!r}; {meant(name, TARGETS)}")
    if weight_storage is None:  # earlier versions had no such flag
        weight_storage = trained_for.get("weight_storage", "auto") if name == trained_for["target"] else "auto"
    _check_options(weight_storage, input_type, gate, runtimes, vela)
    if vela is not None and name != "ethos_u":
        raise ExportError(
            f"--vela_accelerator and the like are only for --target=ethos_u, and the target is {name}; leave them out"
        )
    with speaking_of_examples("input" in results["data"], (ExportError,)):
        with locked(run_dir):
            handoff = load_handoff(run_dir / "handoff")
            if results.get("handoff") != durable.digest(run_dir / "handoff" / durable.MANIFEST):
                raise ExportError(
                    f"{run_dir}: results.json and handoff/ are from different trainings; "
                    "run python -m qkd_tf.train to its end"
                )
            place = ExportFolder.of(run_dir, name)
            verification = _export(
                run_dir, place, handoff, results, name, weight_storage, input_type, gate, runtimes, vela
            )
        exported = Exported(verification, place.path / "model.tflite")
        if print_verdict(exported, exported.tflite, (results.get("full_precision") or {}).get("test_top1")):
            print(f"report: {place.report}")
            for readme in place.path.glob("*/README.md"):  # of the target's bundle, where there is one
                print(f"next: {readme} says how to run the file on the device")
            if note := room.too_large(verification):  # last, where nobody misses it
                print(note)
        return exported


def _check_options(
    weight_storage: str, input_type: str | None, gate: Gate | None, runtimes: Sequence[str], vela: Vela | None
) -> None:
    """Refuses options of a wrong type or value, which only Python can pass: the command checks its flags itself."""
    for option, value, known in (
        ("weight_storage", weight_storage, WEIGHT_STORAGES),
        ("input_type", input_type, INPUT_TYPES),
    ):
        if value is not None and value not in known:
            raise ExportError(f"unknown {option} {value!r}; {meant(str(value), known)}")
    for option, given, kind in (("gate", gate, Gate), ("vela", vela, Vela)):
        if given is not None and not isinstance(given, kind):
            raise ExportError(f"{option} is of type {type(given).__name__}; give a {kind.__module__}.{kind.__name__}")
    if gate is not None and not 0 <= gate.min_accuracy_p <= 1:
        raise ExportError(f"--min_accuracy_p={gate.min_accuracy_p} is not a probability, which is in [0, 1]")
    if gate is not None and not gate.max_top1_difference >= 0:
        raise ExportError(f"--max_top1_difference={gate.max_top1_difference} is not a number of points, 0 or more")
    if isinstance(runtimes, str):
        raise ExportError(f"runtimes={runtimes!r} is a single string; give a list, such as runtimes=[{runtimes!r}]")
    check_names(runtimes)


def _export(
    run_dir: pathlib.Path,
    place: ExportFolder,
    handoff: Handoff,
    results: dict,
    target_name: str,
    weight_storage: str,
    input_type: str | None,
    gate: Gate | None,
    runtimes: Sequence[str],
    vela: Vela | None,
) -> dict:
    target = TARGETS[target_name]
    try:
        rebuilt = rebuild(handoff, input_type or target.input_type, target.clip)
    except ExportError as error:  # there is no file to verify, but the report still says why
        report.write(run_dir, {"passed": False, "failures": [str(error)]}, place.report)
        raise
    graph = store(rebuilt, weight_storage, target)
    content = convert(graph, description=f"qkd_tf {__version__}")
    verification, classes = examine(content, graph, handoff, gate or Gate(), target, runtimes)
    course = Course.of(results["experiment"], str(run_dir))
    trained_for = results["experiment"]["target"]["target"]
    if target.judges != TARGETS[trained_for].judges:
        verification["notes"].append(
            f"the student was trained with --target={trained_for}, whose runtime rounds differently; train with "
            f"--target={target_name} if accuracy is lost"
        )
    if (results.get("full_precision") or {}).get("origin") == "statistics":
        verification["notes"].append(
            "full precision is the model as it came, but with BatchNormalization statistics of training pictures; "
            f"with its own it is right on {results['start_top1']['student']:.2f} % of validation images"
        )
    if classes:
        answers = ((diagnosis_of(run_dir) or {}).get("full_precision") or {}).get("classes")
        full_precision = None if answers is None else np.array(answers)
        verification["more_accurate"] = course.more_accurate(target_name)
        verification["cautions"] = cautions(
            results, verification, handoff.test_labels, classes, full_precision, handoff.label_names
        )
    files = {"model.tflite": content}
    if target.compressed and verification["passed"]:
        compressed = _compress(graph, content, handoff, verification)
        files |= {"model.compressed.tflite": compressed} if compressed else {}
    if target.compressed:
        verification["flash_bytes"] = min(flash_bytes(file) for file in files.values())
    for limit in ("max_flash_bytes", "max_ram_bytes"):
        verification[limit] = results["experiment"]["target"].get(limit, 0)
    if target_name in BUNDLES and verification["passed"]:
        trained = results["experiment"]["data"]
        squashes = trained.get("resize") == "squash"  # earlier versions had no such flag
        files |= BUNDLES[target_name].files(
            Delivery(
                run_dir.name,
                content,
                files.get("model.compressed.tflite"),
                handoff,
                verification,
                trained["image_size"],
                squashes,
                vela or Vela(),
                is_signal="input" in results["data"],
                limits=tuple(room.lines(verification)),
            )
        )
    folder = place.path
    if (replaced := folder / "model.tflite").exists() and replaced.read_bytes() != content:
        print(f"note: {replaced}, of {replaced.stat().st_size:,} bytes, is replaced: it had other settings")
    folder.mkdir(exist_ok=True)
    for name in (VERIFICATION, "model.compressed.tflite"):  # of an earlier export
        (folder / name).unlink(missing_ok=True)
    for bundle in BUNDLES.values():
        shutil.rmtree(folder / bundle.FOLDER, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        durable.write_whole(folder / name, data)
    durable.write_whole(folder / "labels.txt", (run_dir / "handoff" / "labels.txt").read_bytes())
    durable.write_whole(folder / VERIFICATION, json.dumps(verification, indent=1) + "\n")
    report.write(run_dir, verification, place.report, classes)
    return verification


def _compress(graph: IntegerGraph, plain: bytes, handoff: Handoff, verification: dict) -> bytes | None:
    """The lookup-table file, and its result in `verification`; None if there is no such file.

    A kernel that tables would not make smaller keeps its form in the plain file, INT4 or int8.
    """
    if reason := absence("tflm"):
        verification["notes"].append(f"no lookup-table file was written: {reason}")
        return None
    wide = convert(unpacked(graph, compressible(graph)), description=f"qkd_tf {__version__}, compressed")
    content, index_bits = compress(read_back(wide), wide)
    if not index_bits:
        verification["notes"].append("no lookup-table file was written: it would make no kernel smaller")
        return None
    if flash_bytes(content) >= flash_bytes(plain):
        verification["notes"].append(
            f"no lookup-table file was written: with its decoder it would take {flash_bytes(content):,} bytes of "
            f"flash, and model.tflite takes {flash_bytes(plain):,}"
        )
        return None
    verification["compressed"] = {"index_bits": index_bits, **verify_compressed(content, plain, handoff)}
    if not verification["compressed"]["passed"]:
        verification["passed"] = False
        verification["failures"].append("the lookup-table file and the plain file give different logits on TFLM")
    return content
