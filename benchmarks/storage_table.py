"""The table of storages in docs/fidelity.md: python -m benchmarks.storage_table runs/NAME ...

Stores the integers of each finished run as int8, as INT4 and under lookup tables: bytes, arena, whether each
runtime computes the logits that the student predicts, and milliseconds an image there, in turns. Writes
benchmarks/storage/NAME.json and prints a table of all that lie there. Times are only worth something while
nothing else runs.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import pathlib
import sys

import numpy as np

from benchmarks import kept_results
from qkd_tf.contract.targets import TARGETS
from tflite_export.flatbuffer.compress import compress
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.inference.runtimes import infer
from tflite_export.load import load_handoff
from tflite_export.proof.asking import arithmetic_of
from tflite_export.rebuilding.rebuild import rebuild

RESULTS = pathlib.Path(__file__).parent / "storage"
NUM_IMAGES = 200  # the first of the test split, shared out among the turns
NUM_TURNS = 4
TARGET = TARGETS["microcontroller"]
# Of each storage the runtimes that read it.
READERS = {"int8": ("litert", "litert_reference", "tflm"), "int4": ("litert", "tflm"), "tables": ("tflm",)}
HEADER = (
    "run",
    "bytes: int8",
    "INT4",
    "tables",
    "arena: int8",
    "INT4",
    "tables",
    "logits as predicted, %: LiteRT INT4",
    "TFLM, all three",
    "LiteRT, ms: int8",
    "INT4",
    "XNNPACK's share, %: int8",
    "INT4",
    "reference, ms",
    "TFLM, ms: int8",
    "INT4",
    "tables",
)


def measure(run_dir: pathlib.Path) -> dict:
    handoff = load_handoff(run_dir / "handoff")
    graph = rebuild(handoff, TARGET.input_type, TARGET.clip)
    files = {"int8": convert(graph, ""), "int4": convert(store(graph, "int4", TARGET), "")}
    graphs = {storage: read_back(content) for storage, content in files.items()}
    files["tables"], index_bits = compress(graphs["int8"], files["int8"])
    storages = {storage: {"bytes": len(content), "runtimes": {}} for storage, content in files.items()}
    seconds = {(storage, name): [] for storage, names in READERS.items() for name in names}
    logits = {pair: [] for pair in seconds}
    images = handoff.test_images[:NUM_IMAGES]
    for turn in np.array_split(images, NUM_TURNS):
        for storage, name in seconds:
            read = graphs.get(storage, graphs["int8"])
            found, facts = infer(name, read, files[storage], turn)
            logits[storage, name].append(found)
            seconds[storage, name].append(facts.pop("median_seconds"))
            storages[storage]["runtimes"][name] = facts
    for (storage, name), times in seconds.items():
        storages[storage]["runtimes"][name]["median_seconds"] = float(np.median(times))
        expected = handoff.integer_logits[arithmetic_of(name, graphs.get(storage, graphs["int8"]))]
        equal = np.concatenate(logits[storage, name]) == expected[: len(images)]
        storages[storage]["runtimes"][name]["predicted_logits"] = 100.0 * float(np.mean(equal))
    return {
        "run": run_dir.name,
        "num_images": len(images),
        "storages": storages,
        "index_bits": index_bits,
    }


def row(numbers: dict) -> tuple[str, ...]:
    int8, int4, tables = (numbers["storages"][name] for name in READERS)

    def milliseconds(storage: dict, name: str) -> str:
        return f"{1000 * storage['runtimes'][name]['median_seconds']:.2f}"

    return (
        numbers["run"],
        *(f"{storage['bytes']:,}" for storage in (int8, int4, tables)),
        *(f"{storage['runtimes']['tflm']['arena_bytes']:,}" for storage in (int8, int4, tables)),
        f"{int4['runtimes']['litert']['predicted_logits']:.2f}",
        f"{min(storage['runtimes']['tflm']['predicted_logits'] for storage in (int8, int4, tables)):.2f}",
        *(milliseconds(storage, "litert") for storage in (int8, int4)),
        *(f"{storage['runtimes']['litert']['delegated_operators']:.0f}" for storage in (int8, int4)),
        milliseconds(int8, "litert_reference"),
        *(milliseconds(storage, "tflm") for storage in (int8, int4, tables)),
    )


def main(run_dirs: list[str]) -> None:
    kept_results.of_runs(run_dirs, measure, RESULTS, HEADER, lambda numbers: [row(numbers)])


if __name__ == "__main__":
    main(sys.argv[1:])
