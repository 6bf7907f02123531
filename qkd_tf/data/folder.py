"""The user's own pictures: ROOT/train, ROOT/validation and ROOT/test, each with one folder per class.

The class folders for training may also lie in ROOT itself, without `train`. With --test_fraction the test split is a
part of the training pictures.
Classes are those of train, sorted by name, or the lines of ROOT/labels.txt, in the order of the logits. A split's file
names are sorted, then shuffled with a fixed seed, so the order is the same in every run.
"""

import dataclasses
import functools
import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable
from typing import NoReturn

import numpy as np
import tensorflow as tf

from qkd_tf.console.counting import counted
from qkd_tf.console.nearest import nearest
from qkd_tf.data import repeats
from qkd_tf.data.holding_out import stratified
from qkd_tf.data.looks import SHA256_BYTES, look, size_of, within
from qkd_tf.data.pixels import SUFFIXES, decoder, shape_notes
from qkd_tf.data.source import Examples, Source, require_label_names
from qkd_tf.experiment import DataSpec, ExperimentError, printable, require, require_set, set_path
from qkd_tf.experiment.class_folders import LABELS, PREFIX, class_names, entries, is_class, splits_beside, splits_of

NUM_NAMED = 5  # files that a message names; the others are counted
NUM_LOOKED_AT = 32  # pictures from which the shapes of all are estimated before all are looked at
# Endings of picture files in formats that qkd_tf cannot decode.
UNREAD = (".tif", ".tiff", ".heic", ".heif", ".jp2", ".j2k", ".ico", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".pcx")
UNREAD += (".svg", ".psd", ".exr", ".hdr", ".dds", ".dng", ".cr2", ".cr3", ".nef", ".arw")
SPLITS = ("train", "validation", "test")
Files = list[tuple[str, int]]  # path and label of each picture


def open_source(spec: DataSpec) -> Source:
    """Lists the folders, and decodes at most one picture."""
    require_set(spec)
    root = set_path(spec.name)
    test_name = spec.test_split or "test"
    splits = splits_of(spec, root)
    train = splits["train"]
    given = given_labels(root / LABELS) if (root / LABELS).is_file() else None
    known = {*splits.values(), *([root / LABELS] if given is not None else [])}
    strange = [] if train == root else [entry.path for entry in entries(root)]  # of ROOT, listing the split tells it
    apart = splits_beside(spec, root, train)
    label_names = given or class_names(train, apart)
    for name in label_names:
        told = printable(str(train / name))
        require(printable(name) == name, f"class folder {told} is not valid UTF-8, which labels.txt needs; rename it")
    require_label_names(label_names)
    listed = functools.partial(
        _listed,
        apart={root / name for name in apart},
        label_names=label_names,
        named_in=train if given is None else root / LABELS,
        strange=strange,
        given=given is not None,
    )
    files = {name: listed(folder) for name, folder in splits.items()}
    strange = [path for path in strange if pathlib.Path(path) not in known]
    known_by = [within(path, root) for name in sorted(splits) for path, _ in files[name]]
    listing = "\n".join([*known_by, *(f"{LABELS}: {name}" for name in given or ())])
    files = {name: _shuffled(listed) for name, listed in files.items()}
    train, test = _cut(files["train"], spec.test_fraction) if spec.test_fraction else (files["train"], files[test_name])
    validation = files.get("validation") if test_name != "validation" else None
    train, validation = (train, validation) if validation else _cut(train, spec.validation_fraction)
    files = {"train": train, "validation": validation[spec.eval_images], "test": test[spec.eval_images]}
    channels = spec.image_channels or 3
    size = spec.size or _first_size(train, splits["train"])
    unread = [path for path in strange if path.lower().endswith(UNREAD)]
    strange = [path for path in strange if path not in set(unread)]
    return Source(
        **{name: _examples(part, decoder(spec, channels)) for name, part in files.items()},
        image_shape=(*size, channels),
        label_names=label_names,
        version=f"file names {hashlib.sha256(os.fsencode(listing)).hexdigest()[:16]}",
        notes=_notes(f"ignored, not {', '.join(SUFFIXES)} in a class folder", strange, root)
        + _notes("ignored, of a format that is not supported; convert them, for example to PNG", unread, root),
        scan=functools.partial(_scan, spec, root, files),
        early_notes=lambda: shape_notes(spec, *filter(None, (size_of(path) for path, _ in train[:NUM_LOOKED_AT]))),
    )


def describe(spec: DataSpec) -> tuple[tuple[int, int, int], list[str]]:
    """Image shape and label names; the folder must exist."""
    source = open_source(spec)
    return source.image_shape, source.label_names


def other_tests(spec: DataSpec) -> list[str]:
    """Values for --test_split in a folder without `test`: folders with none but the classes of training."""
    root = pathlib.Path(spec.name.removeprefix(PREFIX)).expanduser()
    classes = set(class_names(root / "train" if (root / "train").is_dir() else root))
    others = [name for name in class_names(root) if name not in ("train", "validation")]
    return [name for name in others if class_names(root / name) and set(class_names(root / name)) <= classes]


def _is_picture(entry: os.DirEntry) -> bool:
    return entry.is_file() and not entry.name.startswith(".") and entry.name.lower().endswith(SUFFIXES)


def given_labels(path: pathlib.Path) -> list[str]:
    """Class names in a labels.txt, one per line; space around names and blank lines at the end are ignored."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path} cannot be read as UTF-8: {error}; one class name per line is expected") from None
    names = [line.strip() for line in text.rstrip().split("\n")]
    for number, name in enumerate(names, 1):
        where = f"line {number} of {path}"
        require(name != "" or len(names) == 1, f"{where} is empty; every line must name a class")
        require(
            not name.startswith(".") and not set(name) & set("/\\\0"),
            f"{where} is {name!r}, which cannot be the name of a class folder; use one without / and \\ and without a "
            "leading dot",
        )
        first = names.index(name) + 1
        require(first == number, f"{where} is {name!r}, and so is line {first}; name each class once")
    require(len(names) > 1, f"{path} names {counted(len(list(filter(None, names))), 'class')}; two or more are needed")
    return names


def _listed(
    split: pathlib.Path,
    *,
    apart: set[pathlib.Path],
    label_names: list[str],
    named_in: pathlib.Path,
    strange: list[str],
    given: bool,
) -> Files:
    """Pictures of a split in the order of their names; other files are added to `strange`.

    Args:
      apart: folders that are splits, not classes.
      named_in: what names the classes: the folder of training, or labels.txt.
      given: whether the names come from labels.txt; a class may then have no picture.
    """
    labels = {name: label for label, name in enumerate(label_names)}
    files = []
    for folder in entries(split):
        if not is_class(folder) or pathlib.Path(folder.path) in apart:
            strange.append(folder.path)
            continue
        require(
            folder.name in labels,
            f"{folder.path} is a class that {named_in} does not have; "
            + (f"did you mean {near}? Otherwise " if (near := nearest(folder.name, labels)) else "")
            + "add it there, or remove it",
        )
        before, others = len(files), []
        for entry in entries(folder.path):
            if _is_picture(entry):
                files.append((entry.path, labels[folder.name]))
            else:
                strange.append(entry.path)
                others.append(printable(entry.name))
        require(
            given or len(files) > before,
            f"class folder {folder.path} contains no image ({', '.join(SUFFIXES)})"
            + (f", but {others[0]}" if others else "")
            + _remedy(folder.name, split, is_beside_test=split / "test" in apart),
        )
    require(len(files) > 0, f"{split} has no class folder with an image; one folder of images per class is expected")
    return files


def _remedy(name: str, split: pathlib.Path, is_beside_test: bool) -> str:
    """What to do with a class folder without pictures."""
    if name.lower() in SPLITS:
        return f"; if it is a split, rename it {name.lower()}"
    otherwise = f"; if it is no class, move the class folders into {split / 'train'}" if is_beside_test else ""
    return f"; put pictures into it, or remove it{otherwise}"


def _shuffled(files: Files) -> Files:
    return [files[index] for index in np.random.default_rng(0).permutation(len(files))]


def _cut(files: Files, fraction: float) -> tuple[Files, Files]:
    """(What is left, what is taken): the same share of each class."""
    taken = stratified(np.array([label for _, label in files]), fraction)
    left, kept = ([files[index] for index in np.flatnonzero(part)] for part in (~taken, taken))
    return left, kept


def _examples(files: Files, decode: Callable[[tf.Tensor], tf.Tensor]) -> Examples:
    """Paths are stored and shuffled, which takes hardly any memory."""

    @functools.cache  # of a million paths it takes seconds
    def stored() -> tuple[tf.Tensor, tf.Tensor]:
        paths, labels = ([file[column] for file in files] for column in (0, 1))
        return tf.constant([os.fsencode(path) for path in paths], tf.string), tf.constant(np.array(labels, np.int64))

    def read(seed: int | None) -> tf.data.Dataset:
        if seed is None:
            return tf.data.Dataset.from_tensor_slices(stored())
        order = np.random.default_rng(seed).permutation(len(files))
        return tf.data.Dataset.from_tensor_slices(tuple(tf.gather(column, order) for column in stored()))

    return Examples(len(files), read, lambda path: decode(tf.io.read_file(path)))


def _first_size(files: Files, folder: pathlib.Path) -> tuple[int, int]:
    """Size of the first picture that can be decoded; the scan finds out whether the others have it."""
    size = next((size for size in (size_of(path) for path, _ in files) if size), None)
    require(size is not None, f"no image in {folder} can be decoded")
    return size


def _scan(spec: DataSpec, root: pathlib.Path, files: dict[str, Files], source: Source) -> Source:
    """Looks at every picture that no earlier run has looked at."""
    paths = list(dict.fromkeys(path for part in files.values() for path, _ in part))
    rows, problems = look(root, paths)
    broken = {paths[index]: problem for index, problem in problems.items()}
    told = [f"{within(path, root)} ({reason})" for path, reason in broken.items()]
    require(
        not broken or spec.skip_broken_images,
        f"{len(broken)} of {len(paths)} images of {root} cannot be decoded: {_first(told)}; "
        "repair or remove them, or leave them out with --skip_broken_images",
    )
    sound = np.flatnonzero([path not in broken for path in paths])
    sizes, examples, counts = np.unique(rows["size"][sound], axis=0, return_index=True, return_counts=True)
    if not spec.image_size and len(sizes) > 1:
        _raise_sizes(root, [paths[sound[example]] for example in examples], sizes)
    left = files
    if broken:
        left = {name: [file for file in part if file[0] not in broken] for name, part in files.items()}
        source = dataclasses.replace(
            source,
            **{name: _examples(part, decoder(spec, source.image_shape[2])) for name, part in left.items()},
        )
    gone = {label for _, label in files["train"]} - {label for _, label in left["train"]}
    require(not gone, f"no image of class {_first([source.label_names[label] for label in gone])} can be decoded")
    turned = [within(paths[index], root) for index in np.flatnonzero(rows["is_turned"])]
    digits, size = rows["sha256"].tobytes().hex(), 2 * SHA256_BYTES
    digests = {path: digits[index * size : (index + 1) * size] for index, path in enumerate(paths)}
    return dataclasses.replace(
        source,
        notes=source.notes
        + _notes("left out, cannot be decoded", told)
        + _notes("used as stored, without the rotation in their EXIF data", turned)
        + repeats.notes({name: [digests[path] for path, _ in part] for name, part in left.items()})
        + shape_notes(spec, *itertools.chain(*map(itertools.repeat, sizes.tolist(), counts.tolist()))),
        content_sha256=_content(left, digests, root, source.label_names),
        sizes=tuple(map(tuple, sizes.tolist())),
        is_sound=True,
        scan=None,
        early_notes=tuple,
    )


def _raise_sizes(root: pathlib.Path, examples: list[str], sizes: np.ndarray) -> NoReturn:
    """Raises an error with the first two of several sizes, and a picture of each."""
    told = [
        f"{within(path, root)} has {height}x{width}"
        for path, (height, width) in itertools.islice(zip(examples, sizes, strict=True), 2)
    ]
    raise ExperimentError(
        f"images of {root} differ in size: {', '.join(told)} (height x width); "
        "give --image_size, the size that the network reads, such as --image_size=224 or 48x64 (height x width)"
    )


def _content(files: dict[str, Files], digests: dict[str, str], root: pathlib.Path, names: list[str]) -> str:
    lines = [
        f"{split} {label} {digests[path]} {within(path, root)}" for split, part in files.items() for path, label in part
    ]
    listing = [f"class {name}".encode() for name in names] + sorted(map(os.fsencode, lines))
    return hashlib.sha256(b"\n".join(listing)).hexdigest()


def _notes(what: str, names: list[str], root: pathlib.Path | None = None) -> tuple[str, ...]:
    told = [printable(within(name, root) if root else name) for name in names]
    return (f"note: {what} ({len(told)}): {_first(told)}",) if told else ()


def _first(names: list[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
