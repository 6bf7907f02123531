"""What was requested of a run, and what it achieved."""

import collections

import numpy as np

from qkd_tf.console.counting import counted
from qkd_tf.contract.gate import Gate
from tflite_export.bundles import ethos_u_bundle
from tflite_export.proof.room import COMPRESSED, PLAIN, footprint

ORIGINS = {
    "trained": "trained in this run",
    "weights": "with its pretrained weights",
    "statistics": "with its pretrained weights, and BatchNormalization statistics of training pictures",
    "builder": "as its builder returned it",
}
OLDER = "an earlier version trained this run and did not record it; train again to see it here"


def rows(results: dict, verification: dict, integers: dict[str, np.ndarray]) -> list[dict]:
    """Rows of `what`, `asked` (what was requested), `came` (what was achieved) and whether it was `met`.

    If nothing was requested, `asked` is "" and `met` None.

    Args:
      results, verification: results.json and verification.json.
      integers: kernels by layer name.
    """
    asked, target = results["experiment"]["quantization"], results["experiment"].get("target") or {}
    runtimes = {name: row for name, row in verification.get("runtimes", {}).items() if "not_run" not in row}
    is_found = asked.get("finds_bits", False)  # earlier versions could not
    bits = f"W{'auto' if is_found else asked['weight_bits']}A{asked['activation_bits']}"
    bits += f", first layer {asked['first_layer_bits']}, last {asked['last_layer_bits']}"
    bits += f", outputs that are added, multiplied, averaged or concatenated {asked['residual_bits']}"
    bits += ", slopes and scales of channels 8" + "".join(f", {r}" for r in asked.get("bits_rule", ()))
    widths = {row["layer"]: row["num_bits"] for row in results["coverage"] if row["tensor"] == "kernel"}
    counts = collections.Counter((row["tensor"], row["num_bits"]) for row in results["coverage"])
    achieved = [
        f"{counted(counts[tensor, n], tensor)} at {n} bits"
        for tensor, n in sorted(counts)
        if tensor in ("kernel", "output")
    ]
    found = [_demand("bit widths", bits, ", ".join(achieved))]
    if is_found:
        came = ", ".join(f"{layer} {num_bits}" for layer, num_bits in widths.items())
        found.append(_demand("widths that were found", _limit(target["max_flash_bytes"]), came))

    reference = results.get("full_precision")
    if reference is None:
        found.append(_demand("full precision, top-1", "", f"not known: {OLDER}"))
    elif reference["test_top1"] is None:
        found.append(_demand("full precision, top-1", "", "none: the student was quantized from a random start"))
    else:
        origin = ORIGINS[reference["origin"]]
        found.append(_demand("full precision, top-1", "", f"{reference['test_top1']:.2f} % (the student {origin})"))
    teachers = [phase["teacher_test_top1"] for phase in results["phases"] if "teacher_test_top1" in phase]
    if teachers:
        found.append(_demand("teacher, top-1", "", f"{teachers[-1]:.2f} % (in the last phase with a teacher)"))
    student = results["student_test_top1"]
    lost = ""
    if reference and reference["test_top1"] is not None:
        lost = f", {student - reference['test_top1']:+.2f} points compared with full precision"
    trained = results.get("student")  # earlier versions knew of floating point alone
    numbers = f"computed in the integers of {trained['judge']}" if trained else "in floating point"
    found.append(_demand(f"student {numbers}, top-1", "", f"{student:.2f} %{lost}"))
    if trained:
        found.append(
            _demand("student in floating point, top-1", "", f"{trained['real_numbers_top1']:.2f} % (for comparison)")
        )
    for name, row in runtimes.items():
        demand, met = "", None
        if name == verification["judge"]:
            gate = Gate(**verification["gate"])
            demand = f"at most {gate.max_top1_difference:g} points below floating point, or p ≥ {gate.min_accuracy_p:g}"
            met = not gate.finds_worse(row["accuracy"])
        came = f"{row['accuracy']['top1']:.2f} % of {row['accuracy']['num_images']:,} images"
        if met is not None:
            came += f", p = {row['accuracy']['p']:.2g}"
        found.append(_demand(f"file on {row['title']}, top-1", demand, came, met))

    if "file" in verification:
        size, limit, judged = (
            verification["file"]["bytes"],
            target.get("max_flash_bytes"),
            footprint(verification, target),
        )
        fits = {judged.file: judged.flash <= limit if limit else None}  # the other file is not the one to take
        floats = 4 * sum(codes.size for codes in integers.values())
        came = f"{size:,} bytes (the kernels in float32: {floats:,} bytes)"
        found.append(_demand("size", _limit(limit), came, fits.get(PLAIN)))
        if "compressed" in verification:
            size = verification["compressed"]["file"]["bytes"]
            found.append(_demand("size with lookup tables", _limit(limit), f"{size:,} bytes", fits.get(COMPRESSED)))
        found += [_demand(what, "", f"{size:,} bytes") for what, size in _paid(verification) if size is not None]
        arena, limit = judged.arena, target.get("max_ram_bytes")
        met = arena <= limit if arena is not None and limit else None
        came = _no_arena(verification) if arena is None else f"{arena:,} bytes on TensorFlow Lite for Microcontrollers"
        came += f", for {judged.file}" * ("compressed" in verification)
        found.append(_demand("RAM for activations (arena)", _limit(limit), came, met))
    if vela := verification.get("vela"):
        for what, ours, at_8_bits in ethos_u_bundle.rows(vela):
            came = f"{ours}; with 8-bit weights {at_8_bits}"
            found.append(_demand(f"{what} (Vela's estimate for {vela['accelerator']})", "", came))
    for row in runtimes.values():
        came = f"{1000 * row['median_seconds']:.3g} ms per image on the computer that exported it"
        found.append(_demand(f"latency on {row['title']}", "", came))
    return found


def _paid(verification: dict) -> list[tuple[str, int | None]]:
    """The file's size by other measures than disk space; None if an earlier version did not record it."""
    return [
        ("size deflated, as in a download", verification["file"].get("deflated_bytes")),
        ("kernels alone, at their bit widths", verification.get("weights", {}).get("true_width_bytes")),
        ("flash without TFLM, about", verification.get("flash_bytes")),
    ]


def _demand(what: str, asked: str, came: str, met: bool | None = None) -> dict:
    return {"what": what, "asked": asked, "came": came, "met": met}


def _limit(num_bytes: int | None) -> str:
    return f"at most {num_bytes:,} bytes" if num_bytes else ""


def _no_arena(verification: dict) -> str:
    row = verification["runtimes"].get("tflm", {"not_run": "it was not requested"})
    return f"unknown, TensorFlow Lite for Microcontrollers did not run: {row.get('not_run', 'no reason is known')}"
