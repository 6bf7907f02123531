"""What a user should know about a file's accuracy, whether or not it passed."""

from collections.abc import Mapping, Sequence

import numpy as np

from qkd_tf.contract.chance import balanced_by_guessing, chance, paired
from qkd_tf.contract.gate import Gate
from qkd_tf.contract.origin import leak

FAR_BELOW = 5.0  # points below full precision beyond which there is a caution
FAR_BELOW_OF_CLASS, P_OF_CLASS = 20.0, 0.05  # points below full precision in a class, and how rarely by chance
P_BY_CHANCE = 0.05  # that a file is no better than one class for all
FALSE_ALARMS = 0.5  # most classes, on average, that are named by chance for a file as good as full precision
NUM_TOLD = 3
GATE = Gate()  # the default one: what a user accepts changes nothing of what is said


def cautions(
    results: dict,
    verification: dict,
    labels: np.ndarray,
    classes: Mapping[str, np.ndarray],
    full_precision: np.ndarray | None,
    label_names: Sequence[str],
) -> list[str]:
    """A line for each caution; see docs/verification.md.

    Args:
      results, verification: as in results.json and verification.json, with "more_accurate".
      labels: labels of the test images, [N, ...].
      classes: by runtime, as `verification.examine` returns them.
      full_precision: the class that full precision gives each test image; None if not known by image.
      label_names: one per class.
    """
    data, networks = results["experiment"]["data"], [results["experiment"].get(role) for role in ("student", "teacher")]
    fraction = data.get("test_fraction", 0)  # earlier versions had no such flag
    leaks = leak(data["name"], fraction, [(found["name"], found["weights"]) for found in networks if found])
    judge, below, fallen, guesses = verification["judge"], "", "", ""
    if judge in classes:
        answers = classes[judge]
        top1 = (results.get("full_precision") or {}).get("test_top1")
        below = _far_below(answers, full_precision, top1, labels[: len(answers)])
        if below and verification["passed"]:  # otherwise the refusal says what to do
            below += f": {verification['more_accurate']}"
        if not below:
            fallen = _fallen_classes(answers, full_precision, labels[: len(answers)], label_names)
        if not (below or fallen):
            guesses = _by_chance(answers, labels[: len(answers)], label_names)
    on_classes = [note.removeprefix("note: ") for note in results.get("on_classes", ())]  # new in results.json
    others = _other_runtimes(verification, classes, labels)
    return [line for line in (below, guesses, fallen, leaks, *on_classes, others) if line]


def _far_below(answers: np.ndarray, reference: np.ndarray | None, top1: float | None, labels: np.ndarray) -> str:
    """How far a file is below full precision, if it is far and beyond chance; else ""."""
    if reference is not None and reference.ndim == answers.ndim:
        found = paired(answers, reference[: len(answers)], labels)
    elif top1 is not None:  # not known by image: as if right and wrong answers of the two were independent
        own, right, num_images = float(np.mean(answers == labels)), top1 / 100, len(labels)
        worse, better = round(num_images * right * (1 - own)), round(num_images * own * (1 - right))
        found = {"top1": 100 * own, "student_top1": top1, "p": chance(worse, better)}
    else:
        return ""
    drop = found["student_top1"] - found["top1"]
    if drop <= FAR_BELOW or not GATE.finds_worse(found):
        return ""
    both = f"{found['top1']:.2f} % and {found['student_top1']:.2f} % of {len(labels):,} test images"
    return f"the file is {drop:.2f} points below full precision ({both})"


def _by_chance(answers: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> str:
    """That a file is hardly better than guessing, and than always giving the most frequent class; else ""."""
    known, counts = np.unique(labels, return_counts=True)
    if len(known) < 2 or labels.ndim != 1 or answers.ndim != 1:  # maps
        return ""
    balanced = 100 * np.mean([np.mean(answers[labels == label] == label) for label in known])
    usual = known[np.argmax(counts)]
    found = paired(np.full_like(answers, usual), answers, labels)
    if found["p"] < P_BY_CHANCE or balanced > balanced_by_guessing(counts):
        return ""
    name = names[usual] if usual < len(names) else usual
    return (
        f"the file is right on {found['student_top1']:.2f} % of {len(labels):,} test images; always giving class "
        f"{name} is right on {found['top1']:.2f} %, so it may have learned nothing"
    )


def _fallen_classes(answers: np.ndarray, reference: np.ndarray | None, labels: np.ndarray, names: Sequence[str]) -> str:
    """The classes on which the file is far worse than full precision, beyond chance; overall top-1 may hide them."""
    if reference is None or reference.ndim != answers.ndim or labels.ndim != 1:
        return ""
    told, known = [], np.unique(labels)
    usual = min(P_OF_CLASS, FALSE_ALARMS / len(known))
    for label in known:
        of_class = labels == label
        found = paired(answers[of_class], reference[: len(answers)][of_class], labels[of_class])
        if found["student_top1"] - found["top1"] > FAR_BELOW_OF_CLASS and found["p"] < usual:
            number = np.count_nonzero(of_class)
            right, before = (round(number * found[name] / 100) for name in ("top1", "student_top1"))
            name = names[label] if label < len(names) else label
            told.append(f"{name} ({right} of {number} right, {before} in full precision)")
    more = f" and {len(told) - NUM_TOLD} more" if len(told) > NUM_TOLD else ""
    return f"the file is far less accurate than full precision on class {', '.join(told[:NUM_TOLD])}{more}" * bool(told)


def _other_runtimes(verification: dict, classes: Mapping[str, np.ndarray], labels: np.ndarray) -> str:
    """The runtimes on which the file is worse than on the judge, beyond chance; else ""."""
    judge, rows, worse = verification["judge"], verification["runtimes"], []
    own = classes.get(judge, np.zeros(0))
    for name, answers in classes.items():
        num_images = min(len(answers), len(own))
        if name == judge or not num_images:
            continue
        found = paired(answers[:num_images], own[:num_images], labels[:num_images])
        if GATE.finds_worse(found):
            both = f"{found['top1']:.2f} % and not {found['student_top1']:.2f} %"
            worse.append(f"{both} of {num_images:,} images on {rows[name]['title']} (p = {found['p']:.2g})")
    if not worse:
        return ""
    return (
        f"the file is less accurate on other runtimes than on {rows[judge]['title']}, which judged it: "
        f"{'; '.join(worse)}; ignore this if it only runs on {verification['target']}, and for a device with another "
        "runtime train with its --target"
    )
