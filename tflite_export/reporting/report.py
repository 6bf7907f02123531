"""report.html: one file that opens offline, and says what was trained and whether the .tflite is that."""

import json
import pathlib
from collections.abc import Mapping

import numpy as np

from qkd_tf.console import page
from qkd_tf.console.examples import page_in_examples
from qkd_tf.contract.gate import is_only_less_accurate
from qkd_tf.contract.grid import TensorQuantParams, load_params
from qkd_tf.contract.kinds import REQUANTIZED
from qkd_tf.contract.origin import described
from qkd_tf.storage import durable
from tflite_export import split
from tflite_export.finished_run import diagnosis_of
from tflite_export.proof.remedies import remedies
from tflite_export.reporting import figures, misclassified, requirements, summary
from tflite_export.reporting.kept import untrained
from tflite_export.reporting.requirements import OLDER

TEMPLATE = pathlib.Path(__file__).with_name("report.html.j2")
NUM_WORST = 10
KINDS = {"activations": "output", "kernels": "kernel"}


def write(
    run_dir: pathlib.Path, verification: dict, path: pathlib.Path, classes: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes the report to `path`, from what training left in `run_dir` and from the verification.

    If a run lacks something, its section says so.

    Args:
      verification: as in verification.json.
      classes: by runtime the class that the file gives each test image, as `verification.examine` returns it.
    """
    results = json.loads((run_dir / "results.json").read_text())
    handoff = run_dir / "handoff"
    diagnosis = diagnosis_of(run_dir)
    with np.load(handoff / "weights.npz", allow_pickle=False) as weights:
        integers = {name: weights[name] for name in weights.files}
    params = load_params(handoff / "tensor_params.json")
    judge = verification.get("runtimes", {}).get(verification.get("judge"), {})
    experiment = results["experiment"]
    networks = [experiment[name]["name"] for name in ("student", "teacher") if experiment[name]]
    html = page.render(
        TEMPLATE,
        name=run_dir.name,
        results=results,
        verification=verification,
        remedies=remedies(verification),
        is_only_less_accurate=is_only_less_accurate(verification),
        flags=(run_dir / "flags.txt").read_text(errors="replace").splitlines(),
        answers=summary.answers(results, verification),
        untrained=untrained(results),
        subjects={name: described(name) for name in (results["data"]["name"], *networks)},
        demands=requirements.rows(results, verification, integers),
        mistakes=_mistakes(handoff, verification, classes or {}, diagnosis, "input" in results["data"]),
        beginnings=_beginnings(results),
        training=_training(results["phases"]),
        intervals=_intervals(results),
        errors=_errors(diagnosis, results["coverage"], judge),
        weights=_weights(integers, load_params(handoff / "weight_params.json")),
        ranges=_ranges(diagnosis, params, verification.get("tensors", [])),
    )
    durable.write_whole(path, page_in_examples(html) if "input" in results["data"] else html)


def _mistakes(
    handoff: pathlib.Path,
    verification: dict,
    classes: Mapping[str, np.ndarray],
    diagnosis: dict | None,
    is_signal: bool,
) -> dict:
    """Confusion matrix and pictures for the judge, or why there are none."""
    judge = verification.get("judge", "")
    if judge not in classes:
        return {"missing": "The file was not run, so its mistakes are not known."}
    answers, labels = classes[judge], np.load(handoff / "test_labels.npy")
    if answers.ndim != 1 or labels.ndim != 1:
        shape = "×".join(map(str, answers.shape[1:]))
        return {"missing": f"The output is a map of {shape} values per image, so there is no single class to compare."}
    labels, names = labels[: len(answers)], (handoff / "labels.txt").read_text(encoding="utf-8").splitlines()
    found = {
        "title": verification["runtimes"][judge]["title"],
        "num_images": len(answers),
        "confusion": misclassified.confusion(labels, answers, names),
    }
    full_precision = diagnosis["full_precision"]["classes"] if diagnosis else None
    if full_precision is None:
        random = diagnosis and diagnosis["full_precision"]["origin"] == "random"
        reason = "the student was quantized from a random start" if random else OLDER
        return {**found, "compared": None, "no_reference": f"There is no full precision to compare with: {reason}."}
    compared = misclassified.against_full_precision(labels, answers, np.array(full_precision[: len(answers)]))
    images, shows = split.pixels(handoff), misclassified.signal if is_signal else misclassified.picture
    shown = [
        {"number": i, "png": shows(images[i]), "is": names[labels[i]], "says": names[answers[i]]}
        for i in compared["lost"][: misclassified.NUM_SHOWN]
    ]
    return {**found, "compared": compared, "pictures": shown, "is_signal": is_signal}


BEGINNINGS = {
    "student": "student in floating point",
    "estimated": "student with BatchNormalization statistics of training pictures",
    "quantized": "student after calibration",
    "teacher": "teacher",
}


def _beginnings(results: dict) -> dict:
    """A row for each network with which training began."""
    top1, proofs = results.get("start_top1"), results.get("as_given")
    if top1 is None or proofs is None:
        return {"missing": f"The state before training is not known: {OLDER}."}
    rows = [
        {"what": what, "top1": top1[name], "proof": proofs.get(name)}
        for name, what in BEGINNINGS.items()
        if name in top1
    ]
    return {"rows": rows, "has_zoo_teacher": "teacher" in top1 and proofs.get("teacher") is None}


def _training(phases: list[dict]) -> dict | None:
    return {"losses": figures.losses(phases), "validation": figures.validation(phases)} if phases else None


def _intervals(results: dict) -> dict:
    """The figure of all intervals, a row for each, their change up to the file, and the epoch of the file."""
    phases, tensors = _at_final_bits(results), [row for row in results["coverage"] if row["tensor"] != "input"]
    if not phases:
        return {"missing": "Nothing was trained: intervals are those of calibration."}
    kept = [intervals for phase in phases if len(intervals := figures.interval_rows(phase))]
    if not kept:
        return {"missing": f"The changes of the intervals are not known: {OLDER}."}
    values = np.concatenate(kept)
    rows = []
    for tensor, series in zip(tensors, values.T, strict=True):
        ratio = float(tensor["interval"] / series[0])  # of the file, which seldom has the last epoch's
        name = f"{tensor['layer']} {tensor['tensor']}"
        text = f"{name}: interval {series[0]:.3g} at the start, {series[-1]:.3g} after the last epoch"
        rows.append({**tensor, "first": series[0], "ratio": ratio, "spark": figures.spark(series, text)})
    moved = sorted(rows, key=lambda row: -abs(np.log(row["ratio"])))[:3]
    drawn = [
        figures.intervals(phases, [row["tensor"] == kind for row in tensors], what) for what, kind in KINDS.items()
    ]
    requantized = any(row["layer"].endswith(REQUANTIZED) for row in tensors)
    return {"figures": drawn, "rows": rows, "moved": moved, "kept": phases[-1], "has_requantized": requantized}


def _at_final_bits(results: dict) -> list[dict]:
    """The phases; those at other bit widths (--phase_bits) without intervals, which may belong to other tensors."""
    final = results["experiment"]["quantization"]
    return [
        {**phase, "history": [{}] * len(phase["history"])}
        if any(phase.get(bits, final[bits]) != final[bits] for bits in ("weight_bits", "activation_bits"))
        else phase
        for phase in results["phases"]
    ]


def _errors(diagnosis: dict | None, coverage: list[dict], judge: dict) -> dict:
    """A row for each tensor, beginning with the one whose own grid has the largest error."""
    if diagnosis is None:
        return {"missing": f"The error of each layer is not known: {OLDER}."}
    bits = {(row["layer"], row["tensor"]): row["num_bits"] for row in coverage}
    different = judge["codes"]["different"] if "codes" in judge else None
    rows = []
    for row in diagnosis["tensors"]:
        equal = None
        if different is not None and row["tensor"] == "output":
            equal = different.get(row["layer"], {"equal_codes": 100.0})["equal_codes"]
        rows.append(
            {"full_precision": None, **row, "num_bits": bits[row["layer"], row["tensor"]], "equal_codes": equal}
        )
    own = [np.inf if row["unrounded"]["own_sqnr"] is None else row["unrounded"]["own_sqnr"] for row in rows]
    worst = [rows[k] for k in np.argsort(own, kind="stable")]
    return {
        "num_images": diagnosis["num_images"],
        "referenced": any(row["full_precision"] for row in rows),
        "worst": worst[:NUM_WORST],
        "others": worst[NUM_WORST:],
        "figures": [
            figures.errors([row for row in diagnosis["tensors"] if row["tensor"] == kind], what)
            for what, kind in KINDS.items()
        ],
    }


def _weights(integers: dict[str, np.ndarray], params: dict[str, TensorQuantParams]) -> list[dict]:
    """A histogram for each kernel, over the whole of its grid."""
    rows = []
    for name, codes in integers.items():
        grid = params[name].grid
        counts = np.bincount(codes.ravel().astype(np.int64) - grid.qmin, minlength=grid.num_levels)
        used, zeros = int(np.sum(counts > 0)), 100.0 * counts[-grid.qmin] / codes.size
        ends = 100.0 * (counts[0] + counts[-1]) / codes.size
        text = f"{name}: {used} of {grid.num_levels} integers occur, {zeros:.0f} % are 0, {ends:.1f} % at the ends"
        row = {"name": name, "num_bits": grid.num_bits, "size": codes.size, "used": used, "levels": grid.num_levels}
        rows.append({**row, "zeros": zeros, "ends": ends, "figure": figures.histogram(counts, text)})
    return rows


def _ranges(diagnosis: dict | None, params: dict[str, TensorQuantParams], tensors: list[dict]) -> dict:
    """What each activation's grid can hold, and what was seen on the first images."""
    if diagnosis is None:
        return {"missing": f"The values that activations took are not known: {OLDER}."}
    levels = {row["name"]: row.get("num_levels") for row in tensors}
    rows = []
    for row in (row for row in diagnosis["tensors"] if row["tensor"] == "output"):
        name, error = row["layer"], row["unrounded"]
        grid = params[name].grid
        holds = (grid.qmin * params[name].scale, grid.qmax * params[name].scale)
        seen = (error["lowest"], error["highest"])
        text = f"{name}: the grid holds {holds[0]:.3g} to {holds[1]:.3g}, values are {seen[0]:.3g} to {seen[1]:.3g}"
        found = {"name": name, "num_bits": grid.num_bits, "holds": holds, "seen": seen, "clipped": error["clipped"]}
        found |= {"used": levels.get(name), "levels": grid.num_levels, "figure": figures.ranges(holds, seen, text)}
        rows.append(found)
    return {"rows": rows, "num_images": diagnosis["num_images"]}
