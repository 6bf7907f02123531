"""What files compute on ARM64: python -m benchmarks.arm64 [RUN ...]

Every operator and pair of widths, by the tests marked so, then networks of random weights, calibrated on random pixels,
then the runs that are named. Each file is asked as a phone gets it, in every storage of weights: LiteRT's default and
reference kernels on emulated processors (`benchmarks.processor`) beside what the student predicts for them, every
integer of every tensor on the first images, and logits. Last, the tests of single operators near ties are run with
LiteRT on each processor. What was measured is kept in build/arm64/rows.jsonl, so a campaign that was stopped goes on.
Writes benchmarks/arm64/NAME.json and prints a table of all that lie there; with --table, only prints it. An hour.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from unittest import mock

import ai_edge_litert

from benchmarks import subjects
from benchmarks.processor import FOLDER, PROCESSORS, Processor, absence, emulated, features
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import QuantizationSpec
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference.runtimes import RUNTIMES
from tflite_export.load import Handoff, load_handoff
from tflite_export.proof.asking import arithmetic_of, ask
from tflite_export.rebuilding.rebuild import rebuild

RESULTS = pathlib.Path(__file__).parent / "arm64"
ROWS = FOLDER / "rows.jsonl"
PHONE = TARGETS["phone"]
STORAGES = ("int8", *PHONE.int4)
KERNELS = {"litert": "default", "litert_reference": "reference"}
KEY = ("subject", "storage", "kernels", "processor")
SHARES = ("equal_integers", "equal_operators", "equal_logits")
PIXELS = 224 * 224  # of a network that are asked of each processor, of which none is fast
# Network -> shape of its pictures, classes, bits.
NETWORKS = {"resnet8": ((32, 32, 3), 10, (8, 4, 2)), "mobilenet_v2_1.0": ((224, 224, 3), 1000, (8, 6, 4, 2))}


class Rows:
    """What was measured, a line of JSON each, kept as it comes."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        self._rows = {_key(row): row for row in rows}

    def __iter__(self) -> Iterator[dict]:
        return iter(self._rows.values())

    def of(self, key: dict, digest: str, measure: Callable[[], dict]) -> dict:
        """The row of a key: that of before, if it was of the same file and prediction."""
        known = self._rows.get(_key(key))
        if known is None or known["sha256"] != digest:
            known = self._rows[_key(key)] = {**key, "sha256": digest, **measure()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write("\n" + json.dumps(known))  # ahead of it, since the line before may have been cut short
        return known


def _key(row: dict) -> tuple:
    return tuple(row[name] for name in KEY)


def ask_all(
    subject: str, graph: IntegerGraph, handoff: Handoff, processors: Mapping[str, Processor], rows: Rows
) -> list[dict]:
    """Asks each processor for each storage of a graph, on default and reference kernels.

    Args:
      subject: "GROUP/NAME", or the name of what is a group by itself.
      graph: with kernels as int8.
    """
    found = []
    for storage, content in stored(graph).items():
        file = read_back(content)
        for (name, kernels), (processor, asked) in itertools.product(KERNELS.items(), processors.items()):
            key = dict(zip(KEY, (subject, storage, kernels, processor), strict=True))
            with mock.patch.dict(RUNTIMES, asked.runtimes()):
                digest = _digest(content, handoff, arithmetic_of(name, file))
                found.append(rows.of(key, digest, functools.partial(_measure, name, content, file, handoff)))
    return found


def stored(graph: IntegerGraph) -> dict[str, bytes]:
    """A graph's files, by storage; only those that differ from the ones before."""
    files: dict[str, bytes] = {}
    for storage in STORAGES:
        content = convert(store(graph, storage, PHONE), "")
        if content not in files.values():
            files[storage] = content
    return files


def _digest(content: bytes, handoff: Handoff, arithmetic: str) -> str:
    """Of a file and what is predicted for it."""
    digest = hashlib.sha256(content + arithmetic.encode())
    if arithmetic in handoff.integer_codes:  # one of an earlier version may lack it
        digest.update(handoff.integer_logits[arithmetic].tobytes())
        for codes in handoff.integer_codes[arithmetic].values():
            digest.update(codes.tobytes())
    return digest.hexdigest()[:16]


def _measure(name: str, content: bytes, file: IntegerGraph, handoff: Handoff) -> dict:
    numbers, *_ = ask(name, content, file, handoff)
    if "not_run" in numbers:
        return {"not_run": numbers["not_run"]}
    return {
        "num_images": numbers["num_code_images"],
        "num_tensors": numbers["codes"]["num_tensors"],
        "equal_integers": numbers["codes"]["equal_codes"],
        "equal_operators": numbers["operators"]["equal_codes"],
        "equal_logits": numbers["integer_student"]["equal_logits"],
        "first_different": numbers["operators"]["first_different"] or numbers["codes"]["first_different"],
        "max_step_error": max(numbers[compared]["max_step_error"] for compared in ("codes", "operators")),
        "delegated": numbers["delegated_operators"],
        "unpacked": numbers.get("unpacked", False),
    }


def as_predicted(row: dict) -> bool:
    return "not_run" not in row and all(row[share] == 100.0 for share in SHARES)


def summary(rows: list[dict]) -> list[dict]:
    """A row for each storage, kernels and processor: how many files of a group are as predicted, and which are not."""
    cells = {key: [] for key in itertools.product(STORAGES, KERNELS.values(), PROCESSORS)}
    for row in rows:
        cells[tuple(row[name] for name in KEY[1:])].append(row)
    return [
        {
            **dict(zip(KEY[1:], key, strict=True)),
            "files": len(cell),
            "as_predicted": sum(map(as_predicted, cell)),
            "unpacked": sum(row.get("unpacked", False) for row in cell),
            "others": {row["subject"]: _told(row) for row in cell if not as_predicted(row)},
        }
        for key, cell in cells.items()
        if cell
    ]


def _told(row: dict) -> str:
    if "not_run" in row:
        return row["not_run"]
    least = min(row[share] for share in SHARES)
    return f"{row['first_different']} is the first that differs, by up to {row['max_step_error']}; {least:.2f} % equal"


def write(rows: Rows, folder: pathlib.Path = RESULTS) -> None:
    """A file for each group in `rows`."""
    folder.mkdir(exist_ok=True)
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["subject"].split("/")[0]].append(row)
    for group, found in groups.items():
        numbers = {"litert": ai_edge_litert.__version__, "rows": summary(found)}
        (folder / f"{group}.json").write_text(json.dumps(numbers, indent=1) + "\n")


def table(folder: pathlib.Path = RESULTS) -> list[str]:
    """Lines of docs/fidelity.md."""
    processors = [f"{name} ({what})" for name, what in PROCESSORS.items()]
    header = ("files", "weights as", "kernels", *processors)
    lines, others = [header, ("---",) * len(header)], []
    for path in sorted(folder.glob("*.json")):
        cells: dict[tuple, dict] = collections.defaultdict(dict)
        for row in json.loads(path.read_text())["rows"]:
            cells[row["storage"], row["kernels"]][row["processor"]] = f"{row['as_predicted']} of {row['files']}"
            others += [
                f"* {subject}, {row['storage']}, {row['kernels']} kernels, {row['processor']}: {told}"
                for subject, told in row["others"].items()
            ]
        for key, found in cells.items():
            lines.append((path.stem, *key, *(found.get(name, "-") for name in PROCESSORS)))
    return [*(f"| {' | '.join(cells)} |" for cells in lines), *([""] if others else []), *others]


def networks(rows: Rows, processors: Mapping[str, Processor], run_dirs: list[pathlib.Path]) -> None:
    """Asks for NETWORKS, and for finished runs."""
    for name, (image_shape, num_classes, widths) in NETWORKS.items():
        for num_bits in widths:
            spec = QuantizationSpec(weight_bits=num_bits, activation_bits=num_bits, last_layer_bits=num_bits)
            _, folder = subjects.write_handoff(name, image_shape, num_classes, spec, _num_images(image_shape))
            handoff = first_images(load_handoff(folder))
            ask_all(f"{name}_w{num_bits}a{num_bits}", rebuild(handoff, "int8"), handoff, processors, rows)
    for run_dir in run_dirs:
        handoff = first_images(load_handoff(run_dir / "handoff"))
        ask_all(run_dir.name, rebuild(handoff, PHONE.input_type), handoff, processors, rows)


def first_images(handoff: Handoff) -> Handoff:
    """A handoff of the first PIXELS alone."""
    part = slice(_num_images(handoff.test_images.shape[1:]))
    return dataclasses.replace(
        handoff,
        test_images=handoff.test_images[part],
        test_labels=handoff.test_labels[part],
        student_logits=handoff.student_logits[part],
        integer_logits={row: logits[part] for row, logits in handoff.integer_logits.items()},
        integer_codes={
            row: {name: codes[part] for name, codes in tensors.items()}
            for row, tensors in handoff.integer_codes.items()
        },
    )


def _num_images(image_shape: tuple[int, ...]) -> int:
    return max(1, PIXELS // math.prod(image_shape[:-1]))


def tests(*arguments: str) -> bool:
    """Whether tests pass, which print what does not."""
    return subprocess.run([sys.executable, "-m", "pytest", "--quiet", *arguments]).returncode == 0  # noqa: S603


def main(arguments: list[str]) -> None:
    passed = True
    if arguments != ["--table"]:
        if reason := absence():
            sys.exit(f"error: {reason}")
        for name in PROCESSORS:
            print(f"{name} has {' and '.join(sorted(features(name))) or 'neither asimddp nor i8mm'}", flush=True)
        passed &= tests("-m", "arm64", "tests/tflite_export/test_arm64.py")
        rows = Rows(ROWS)
        with contextlib.ExitStack() as stack:
            processors = {name: stack.enter_context(emulated(name)) for name in PROCESSORS}
            networks(rows, processors, [pathlib.Path(run_dir) for run_dir in arguments])
        write(rows)
        for name in PROCESSORS:
            passed &= tests(
                f"--processor={name}", "-k", "not tflm", "tests/tflite_export/inference/test_integer_reference.py"
            )
        passed &= all(map(as_predicted, rows))
    print(*table(), sep="\n")
    if not passed:
        sys.exit("error: not everything is as predicted, see above")


if __name__ == "__main__":
    main(sys.argv[1:])
