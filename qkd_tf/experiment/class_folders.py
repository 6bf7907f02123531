"""The folders of a picture data set, by name only: splits, and in each split one folder per class."""

import os
import pathlib
from collections.abc import Collection

from qkd_tf.experiment.checks import printable, require
from qkd_tf.experiment.data import DataSpec

PREFIX = "folder:"
LABELS = "labels.txt"
# Folders that systems leave behind, beside those that begin with a dot.
LEFT_BEHIND = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__")


def entries(folder: str | pathlib.Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name."""
    return sorted(os.scandir(folder), key=lambda entry: entry.name)


def is_class(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder that may be a class."""
    return entry.is_dir() and not entry.name.startswith(".") and entry.name not in LEFT_BEHIND


def class_names(split: pathlib.Path, apart: Collection[str] = ()) -> list[str]:
    """Names of the folders of a split that may be classes, sorted.

    Args:
      apart: names of folders that are no classes: `splits_beside`, if the classes lie beside the other splits.
    """
    return [entry.name for entry in entries(split) if is_class(entry) and entry.name not in apart]


def splits_beside(spec: DataSpec, root: pathlib.Path, train: pathlib.Path) -> frozenset[str]:
    """Names of the folders in `train` that are no classes but other splits; none if `train` is not ROOT itself."""
    return frozenset({"validation", "test", spec.test_split or "test"} if train == root else ())


def has_test(spec: DataSpec) -> bool:
    """Whether flags or the set itself say what the test split is; True, too, if the set's folder does not exist."""
    if not spec.name.startswith(PREFIX):
        return True
    root = pathlib.Path(spec.name.removeprefix(PREFIX)).expanduser()
    return bool(spec.test_split or spec.test_fraction) or (root / "test").is_dir() or not root.is_dir()


def splits_of(spec: DataSpec, root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Split -> its folder of class folders; without test if --test_fraction takes it from train.

    Raises:
      ExperimentError: a required split is missing, or --test_fraction is given although there is a test split.
    """
    test_name = spec.test_split or "test"
    if spec.test_fraction:
        require(
            not spec.test_split and not (root / "test").is_dir(),
            f"--test_fraction={spec.test_fraction}: {root} has a test split, {root / test_name}; leave the flag out, "
            "or if a flag file has it, add --test_fraction=0 after --flagfile",
        )
    splits = {"train": root if _has_classes(spec, root) else root / "train"}
    if not spec.test_fraction:
        splits[test_name] = root / test_name
    for name, folder in splits.items():
        otherwise = next((entry.name for entry in entries(root) if is_class(entry) and entry.name.lower() == name), "")
        require(folder.is_dir() or not otherwise, f"{root} has no folder {name}; rename {otherwise} to {name}")
        require(
            folder.is_dir(),
            f"{root} has no folder {name}; train and {test_name} are needed, each with one folder of images per class. "
            f"The class folders for training may also lie in {root} itself, beside {test_name}. Give --test_split for "
            "another name, or --test_fraction=0.2 to take the test images from the training images",
        )
    if (root / "validation").is_dir():
        splits["validation"] = root / "validation"
    return splits


def _has_classes(spec: DataSpec, root: pathlib.Path) -> bool:
    """Whether the class folders for training lie in ROOT itself, without `train`."""
    if (root / "train").exists():
        return False
    names = class_names(root, splits_beside(spec, root, root))
    if spec.test_fraction:
        return bool(names) or not (root / "validation").exists()
    return any(entry.is_file() and not entry.name.startswith(".") for name in names for entry in entries(root / name))


def require_classes(spec: DataSpec, root: pathlib.Path) -> None:
    """Raises ExperimentError if the folders cannot be splits and classes, whatever is in them."""
    splits = splits_of(spec, root)
    train, has_others = splits["train"], len(splits) > 1
    apart = splits_beside(spec, root, train)
    if (root / LABELS).is_file():  # which names the classes
        return
    names = [printable(name) for name in class_names(train, apart)]
    files = [entry.name for entry in entries(train) if entry.is_file() and not entry.name.startswith(".")]
    found = f"{train} has no class folder"
    if names:
        found = f"{train} has 1 class folder, {names[0]}"
    elif files:
        found += f", and {printable(files[0])} lies in {train} itself; put the pictures of each class into its folder"
    deeper = _classes_below(train, apart) if len(names) == 1 else None
    if deeper is not None:
        remedy = f"give --dataset={PREFIX}{deeper}"
        if train != root or has_others:
            remedy = f"move its folders into {root / 'train'}"
        found += f", and the classes seem to be deeper, in {printable(str(deeper))}; {remedy}"
    require(len(names) > 1, f"{found}; two or more class folders are needed")


def _classes_below(folder: pathlib.Path, apart: Collection[str]) -> pathlib.Path | None:
    """The first folder with several subfolders, down a chain of only subfolders; None if there is none."""
    names = class_names(folder, apart)
    while len(names) == 1:
        folder = folder / names[0]
        names = class_names(folder)
    return folder if names else None
