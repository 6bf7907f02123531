"""What a reader asks first: is it what I trained, how accurate, how large, how fast, does it fit."""

import dataclasses

from qkd_tf.contract.gate import is_only_less_accurate
from tflite_export.proof.room import footprint
from tflite_export.reporting.kept import untrained


@dataclasses.dataclass(frozen=True)
class Answer:
    """A question, its answer in a few words, and one more sentence.

    Attributes:
      bad: whether it is shown as a bad answer.
    """

    question: str
    answer: str
    more: str = ""
    bad: bool = False


def answers(results: dict, verification: dict) -> list[Answer]:
    """The questions that can be answered, in order.

    Args:
      results, verification: results.json and verification.json; without a "file" if none was written.
    """
    found = [_proven(results, verification)]
    if "file" not in verification:
        return found
    judged = verification["runtimes"].get(verification["judge"], {})
    if "accuracy" in judged:
        found.append(_accurate(results, judged["accuracy"]))
    found.append(_large(verification))
    if "median_seconds" in judged:
        seconds = judged["median_seconds"]
        more = f"per image on {judged['title']}, on the computer that exported it, not on the device"
        found.append(Answer("How fast?", f"{1000 * seconds:.3g} ms", more))
    return found + _fits(results, verification)


def _proven(results: dict, verification: dict) -> Answer:
    question = "Is it what I trained?"
    if is_only_less_accurate(verification):
        title = verification["runtimes"][verification["judge"]]["title"]
        more = f"every integer is as predicted, but on {title} the file is less accurate than the student"
        return Answer(question, "Yes, but refused", more, bad=True)
    if not verification["passed"]:
        return Answer(question, "No", "the reasons are above", bad=True)
    ran = [row for row in verification["runtimes"].values() if "not_run" not in row]
    whole = [row for row in ran if row["operators"]["num_tensors"]]  # others showed their logits alone
    logits = max(row["integer_student"]["num_images"] for row in ran)
    integers = f"every integer of {max(row['num_code_images'] for row in whole):,} images and " if whole else ""
    more = f"{integers}the logits of {logits:,}{'' if whole else ' images'} are as predicted, on {len(whole or ran)} "
    more += "runtimes" if len(whole or ran) > 1 else "runtime"
    if why := untrained(results):
        return Answer(question, "Calibrated only", f"{why}. Of the calibrated student {more}")
    return Answer(question, "Yes", more)


def _accurate(results: dict, accuracy: dict) -> Answer:
    top1, reference = accuracy["top1"], (results.get("full_precision") or {}).get("test_top1")
    more = f"top-1 of the file on {accuracy['num_images']:,} test images"
    if reference is not None:
        more += f"; full precision has {reference:.2f} %, a difference of {top1 - reference:+.2f} points"
    return Answer("How accurate?", f"{top1:.2f} %", more)


def _large(verification: dict) -> Answer:
    size, true_width = verification["file"]["bytes"], verification.get("weights", {}).get("true_width_bytes")
    more = f"; the kernels alone would take {true_width:,} bytes at their trained bit widths" if true_width else ""
    return Answer("How large?", _readable(size), f"model.tflite, {size:,} bytes{more}")


def _readable(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.1f} KiB"


def _fits(results: dict, verification: dict) -> list[Answer]:
    """Compares with the limits that the run was given; empty if there are none."""
    limits = results["experiment"].get("target") or {}
    file = footprint(verification, limits)
    had = {"flash": file.flash, "RAM": file.arena}
    allowed = {"flash": limits.get("max_flash_bytes"), "RAM": limits.get("max_ram_bytes")}
    found = {name: (had[name], limit) for name, limit in allowed.items() if limit}
    if not found:
        return []
    over = [name for name, (size, limit) in found.items() if size is not None and size > limit]
    unknown = [name for name, (size, _) in found.items() if size is None]
    answer = f"No, too much {' and '.join(over)}" if over else f"{' and '.join(unknown)} unknown" if unknown else "Yes"
    told = [
        f"{name} {'unknown' if size is None else f'{size:,}'} of {limit:,} bytes"
        for name, (size, limit) in found.items()
    ]
    which = f"{file.file}: " * ("compressed" in verification)
    return [Answer("Does it fit?", answer, which + ", ".join(told), bad=bool(over))]
