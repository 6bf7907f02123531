"""Puts the proven files of a run into zoo/: python -m benchmarks.zoo RUN NAME --weights=… --licence=…

The run was exported for phones and for microcontrollers, and both files passed. An entry has the two files, labels,
flags, both verifications, a card for people, and the logits of generated pictures on each runtime, by which a test
finds that the files still compute what they did. `python -m docs.results` puts all entries into zoo/README.md.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import json
import math
import pathlib
import shutil
import sys
from collections.abc import Mapping

import numpy as np

from qkd_tf import flags
from qkd_tf.experiment import ExperimentError, require
from qkd_tf.storage.run_folder import FLAGS_FILE, what_matters
from tflite_export.export_folder import VERIFICATION, ExportFolder, target_of
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.inference.runtimes import absence, infer

ZOO = pathlib.Path(__file__).parents[1] / "zoo"
# Target -> the runtimes that run its file. LiteRT's default kernels round INT4 in other ways on other processors.
READERS: Mapping[str, tuple[str, ...]] = {
    "phone": ("litert", "litert_reference", "tflm"),
    "microcontroller": ("litert_reference", "tflm"),
}
NUM_PICTURES = 4
COLOURS = {1: "grey", 3: "RGB"}  # by channels of the input
CARD = """\
# {title}

| | `phone.tflite` | `microcontroller.tflite` |
| --- | --- | --- |
{rows}

The float network that training began with has {full_precision:.2f} %. Top-1 is that of the file on its judge, the
runtime that decides whether it is accepted. Every integer of both files is as predicted on every runtime that ran them
(`*.verification.json`). Latency is on one thread of an x86-64 processor: it compares these files, not devices.

Input: {input}; uint8 for the phone, int8 (pixel − 128) for the microcontroller. Output: int8 logits of
{num_classes} classes in the order of `labels.txt`.

Made by

    python -m qkd_tf.train --flagfile=zoo/{name}/flags.txt --data_dir=DIR --run_dir=runs/{name}{weights_flags}
    python -m tflite_export --run_dir=runs/{name} --target=phone
    python -m tflite_export --run_dir=runs/{name} --target=microcontroller

Initial weights: {weights}. Licence: {licence}.
"""


def pictures(shape: tuple[int, ...]) -> np.ndarray:
    """Generated pictures, [NUM_PICTURES, *shape] uint8, the same on every machine: waves of several lengths."""
    axes = np.meshgrid(*(np.arange(size) for size in (NUM_PICTURES, *shape)), indexing="ij")
    number, *places = axes
    phase = sum((step + 2) * place for step, place in enumerate(places))
    return ((phase * (number + 1) * 7 + number * 61) % 256).astype(np.uint8)


def file_of(entry: pathlib.Path, target: str) -> pathlib.Path:
    return entry / f"{target}.tflite"


def logits(entry: pathlib.Path, target: str) -> dict[str, np.ndarray]:
    """What each runtime that is here makes of the pictures with a file: integers [NUM_PICTURES, K]."""
    content = file_of(entry, target).read_bytes()
    graph = read_back(content)
    images = pictures(tuple(graph.tensors[graph.input].shape[1:]))
    return {name: infer(name, graph, content, images)[0] for name in READERS[target] if absence(name) is None}


def flags_of(run_dir: pathlib.Path) -> list[str]:
    """The flags of a run that are not defaults, without places of the machine."""
    defaults = {flags.FLAGS[name].serialize() for name in flags.FLAGS}
    lines = (run_dir / FLAGS_FILE).read_text().splitlines()
    return [line for line in what_matters(lines) if line not in defaults]


def verification_of(entry: pathlib.Path, target: str) -> dict:
    return json.loads((entry / f"{target}.{VERIFICATION}").read_text())


def facts(entry: pathlib.Path) -> dict[str, tuple[str, str]]:
    """What a card's table has: its lines, each with a cell for the phone and one for the microcontroller."""
    found = [verification_of(entry, target) for target in READERS]
    judged = [verification["runtimes"][verification["judge"]] for verification in found]
    phone, micro = found
    return {
        "top-1, %": tuple(f"{row['top1']:.2f} of {row['num_images']:,} images" for row in judged),
        "judged on": tuple(row["title"] for row in judged),
        "bytes": tuple(f"{verification['file']['bytes']:,}" for verification in found),
        "bytes, deflated": tuple(f"{verification['file']['deflated_bytes']:,}" for verification in found),
        "weights at true width, bytes": tuple(f"{v['weights']['true_width_bytes']:,}" for v in found),
        "latency on LiteRT, ms": (f"{1000 * phone['runtimes']['litert']['median_seconds']:.2f}", ""),
        "TFLM's arena on x86-64, bytes": ("", f"{micro['runtimes']['tflm']['arena_bytes']:,}"),
    }


def card(entry: pathlib.Path, full_precision: float, weights: str, licence: str) -> str:
    graph = read_back(file_of(entry, "phone").read_bytes())
    shape = graph.tensors[graph.input].shape[1:]
    given = [line.partition("=")[0] for line in (entry / FLAGS_FILE).read_text().splitlines() if "_weights=" in line]
    return CARD.format(
        title=entry.name,
        name=entry.name,
        rows="\n".join(f"| {label} | {' | '.join(cells)} |" for label, cells in facts(entry).items()),
        full_precision=full_precision,
        input=f"{' x '.join(map(str, shape))} pixels, {COLOURS[shape[-1]]}",
        num_classes=math.prod(graph.tensors[graph.output].shape),
        weights=weights,
        weights_flags="".join(f" \\\n        {flag}=FILE" for flag in given),
        licence=licence,
    )


def add(run_dir: pathlib.Path, name: str, weights: str, licence: str, zoo: pathlib.Path = ZOO) -> pathlib.Path:
    """Makes the entry `name` of the exports of a run; one that is there is replaced.

    Raises:
      ExperimentError: the run has not been exported for both targets, or a file of it was refused.
    """
    exports = {target: ExportFolder.of(run_dir, target).path for target in READERS}
    for target, folder in exports.items():
        require(
            target_of(folder) == target and (folder / "model.tflite").exists(),
            f"{run_dir} has no accepted file for {target}; "
            f"run python -m tflite_export --run_dir={run_dir} --target={target}",
        )
    entry = zoo / name
    entry.mkdir(parents=True, exist_ok=True)
    found = {}
    for target, folder in exports.items():
        shutil.copy(folder / "model.tflite", file_of(entry, target))
        shutil.copy(folder / VERIFICATION, entry / f"{target}.{VERIFICATION}")
        found |= {f"{target}.{on}": rows for on, rows in logits(entry, target).items()}
    shutil.copy(exports["phone"] / "labels.txt", entry)
    (entry / FLAGS_FILE).write_text("\n".join(flags_of(run_dir)) + "\n")
    (entry / "logits.json").write_text(json.dumps({key: rows.tolist() for key, rows in sorted(found.items())}) + "\n")
    results = json.loads((run_dir / "results.json").read_text())
    (entry / "README.md").write_text(card(entry, results["full_precision"]["test_top1"], weights, licence))
    return entry


def rows(zoo: pathlib.Path = ZOO) -> list[tuple[str, ...]]:
    """The table of all entries, its heading first."""
    lines = [("file", "top-1, %", "phone: bytes", "ms on LiteRT", "microcontroller: bytes", "arena, bytes")]
    for entry in sorted(path for path in zoo.iterdir() if path.is_dir()):
        told: Mapping[str, tuple[str, str]] = facts(entry)
        lines.append(
            (
                f"[{entry.name}]({entry.name}/README.md)",
                told["top-1, %"][0].partition(" ")[0],
                told["bytes"][0],
                told["latency on LiteRT, ms"][0],
                told["bytes"][1],
                told["TFLM's arena on x86-64, bytes"][1],
            )
        )
    return lines


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=pathlib.Path)
    parser.add_argument("name", help="of the entry, as resnet8_cifar10_w2a2")
    parser.add_argument("--weights", required=True, help="where the float weights come from that it began with")
    parser.add_argument("--licence", required=True, help="of start weights and data")
    options = parser.parse_args(argv)
    try:
        print(add(options.run_dir, options.name, options.weights, options.licence))
    except ExperimentError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
