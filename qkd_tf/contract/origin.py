"""What a network's name says about its first weights, and what these mean for the test."""

from collections.abc import Iterable

SAVED = (".keras", ".h5")  # endings of a saved model
IN_MEMORY = "in_memory:"  # beginning of the name of what Python hands over
# Beginnings for a network in memory: one that was trained before, and one that is still to be trained.
TRAINED_IN_MEMORY, UNTRAINED_IN_MEMORY = f"{IN_MEMORY}trained:", f"{IN_MEMORY}untrained:"


def is_saved(name: str) -> bool:
    """Whether a network is a saved model."""
    return name.endswith(SAVED) or ("/" in name and ":" not in name)


def has_weights(name: str, weights: str) -> bool:
    """Whether a network comes with trained weights, as far as we can know.

    Args:
      weights: the file from which they are loaded, "" for none.
    """
    return bool(weights) or is_saved(name) or name.startswith(TRAINED_IN_MEMORY)


def described(name: str) -> str:
    """A set's or network's name, in words where Python handed it over.

    Args:
      name: as recorded, such as "in_memory:DIGEST" for a set or "in_memory:trained:NAME" for a network.
    """
    for beginning, how in ((TRAINED_IN_MEMORY, "with weights"), (UNTRAINED_IN_MEMORY, "without weights")):
        if name.startswith(beginning):
            return f"the model {name.removeprefix(beginning)}, in memory, {how}"
    if name.startswith(IN_MEMORY):
        return f"a set in memory ({name.removeprefix(IN_MEMORY)[:8]})"
    return name


def leak(dataset: str, test_fraction: float, networks: Iterable[tuple[str, str]]) -> str:
    """A warning if weights of student or teacher may have seen the pictures that are tested; else "".

    Args:
      dataset: as --dataset takes it; "folder:ROOT" if there is a test fraction.
      networks: name and weights of each, as in `has_weights`.
    """
    names = [name.rpartition(":")[2] for name, weights in networks if has_weights(name, weights)]
    if not (test_fraction and names):
        return ""
    root, name = dataset.partition(":")[2], " or ".join(dict.fromkeys(names))
    return (
        f"the test pictures are taken from {root} (--test_fraction={test_fraction:g}): if {name} was trained on them, "
        f"the test result is too good; put pictures that it has never seen into {root}/test, in one folder for each "
        "class, and leave the flag out"
    )
