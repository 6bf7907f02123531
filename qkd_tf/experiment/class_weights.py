"""Weights of the classes, as a user gives them."""

import math
from collections.abc import Callable, Sequence

from qkd_tf.console.counting import counted
from qkd_tf.console.nearest import meant
from qkd_tf.experiment.checks import ExperimentError, require

BALANCED = "balanced"
FORMS = "'balanced', one number per class, or CLASS:NUMBER for some classes"


def class_weights(
    told: Sequence[str], label_names: Sequence[str], num_by_class: Callable[[], Sequence[int]]
) -> list[float] | None:
    """One factor per class, by label; None if all are 1.

    Balanced weights are n / (k * n[c]) for n examples, n[c] of them of class c, and k classes that have examples. All
    classes then weigh the same, and the mean over the examples is 1 (scikit-learn's `class_weight="balanced"`).

    Args:
      told: entries of --class_weights.
      num_by_class: gives the number of training examples of each class; called only if the weights depend on it.

    Raises:
      ExperimentError: no such class, a class twice, or a number of weights other than that of classes.
    """
    if not told:
        return None
    if list(told) == [BALANCED]:
        numbers = num_by_class()
        share = sum(numbers) / sum(number > 0 for number in numbers)
        return [share / number if number else 1.0 for number in numbers]
    named = [entry.rpartition(":") for entry in told]
    if any(colon for _, colon, _ in named):
        by_label: dict[int, float] = {}
        for name, _, number in named:
            label = _label(name, label_names)
            require(label not in by_label, f"--class_weights has the class {label_names[label]} twice; give one weight")
            by_label[label] = _weight(number)
        return [by_label.get(label, 1.0) for label in range(len(label_names))]
    require(
        len(told) == len(label_names),
        f"--class_weights has {counted(len(told), 'number')} and there are {len(label_names)} classes; give one per "
        "class, or CLASS:NUMBER for some classes",
    )
    return [_weight(entry) for entry in told]


def require_weights(told: Sequence[str]) -> None:
    """Raises ExperimentError for entries that are not class weights, whatever the classes are."""
    if not told or list(told) == [BALANCED]:
        return
    named = [":" in entry for entry in told]
    weights = [_weight(entry.rpartition(":")[2]) for entry in told]
    require(all(named) or not any(named), f"--class_weights={','.join(told)}: {FORMS} are expected")
    require(any(named) or any(weights), "--class_weights are 0 for every class, and nothing would be learned")


def require_class_weights(told: Sequence[str], label_names: Sequence[str]) -> None:
    """Raises ExperimentError as `class_weights`, without looking at examples."""
    class_weights(told, label_names, lambda: [1] * len(label_names))


def _label(name: str, label_names: Sequence[str]) -> int:
    """The class of that name, or else of that number."""
    numbers = {str(label): label for label in range(len(label_names))}
    by_name = label_names.index(name) if name in label_names else None
    label = numbers.get(name, by_name)
    if label is None:
        known = ", ".join(label_names[:10]) + (" …" if len(label_names) > 10 else "")
        hint = meant(name, label_names, f"known are {known}")
        raise ExperimentError(f"--class_weights has the unknown class {name!r}; {hint}")
    require(
        by_name in (None, label),
        f"--class_weights={name}:… may mean the class {name} or class number {name}, {label_names[label]}; "
        "give a number for every class",
    )
    return label


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        raise ExperimentError(f"--class_weights has {text!r} as a weight; {FORMS} are expected") from None
    require(0 <= weight < math.inf, f"--class_weights has {text}; 0 or a positive, finite number is expected")
    return weight
