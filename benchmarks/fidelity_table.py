"""The README's table of runtimes: python -m benchmarks.fidelity_table runs/NAME ...

For each finished run: exports it for a phone (int8), asks every runtime for the whole test split, stores
the same integers as INT4 and under lookup tables too, and asks TFLM whether their logits are the
same on the first images. Writes benchmarks/fidelity/NAME.json and prints a table of all that lie there.
"""

import json
import pathlib
import sys

import numpy as np

from tflite_export.compress import compress
from tflite_export.convert import convert
from tflite_export.export import export
from tflite_export.load import load_handoff
from tflite_export.read_back import read_back
from tflite_export.rebuild import rebuild
from tflite_export.runtimes import infer
from tflite_export.targets import TARGETS, store

RESULTS = pathlib.Path(__file__).parent / "fidelity"
NUM_IMAGES = 500
HEADER = (
    "run",
    "Keras student",
    "runtime",
    "top-1, %",
    "agreement with the student",
    "with the student in its integers",
    "operators' integers equal",
    "logits off by one",
    "ms an image",
    "bytes int8 / INT4 / tables",
    "arena int8 / INT4 / tables",
)


def measure(run_dir: pathlib.Path) -> dict:
    """The verification of one run's file, and what other storage makes of it."""
    verification = export(run_dir, TARGETS["phone"])
    handoff = load_handoff(run_dir / "handoff")
    graph = rebuild(handoff, TARGETS["microcontroller"].input_type)
    files = {
        "int8": convert(graph, ""),
        "int4": convert(store(graph, "int4", TARGETS["microcontroller"]), ""),
    }
    found = {name: read_back(content) for name, content in files.items()}
    files["tables"], index_bits = compress(found["int8"], files["int8"])
    images = handoff.test_images[:NUM_IMAGES]
    storage = {}
    for name, content in files.items():
        logits, facts = infer("tflm", found.get(name, found["int8"]), content, images)
        expected = handoff.integer_logits["tflm"][:NUM_IMAGES]
        storage[name] = {"bytes": len(content), "equal_logits": 100.0 * float(np.mean(logits == expected)), **facts}
    storage["int4"]["litert_median_seconds"] = infer("litert", found["int4"], files["int4"], images)[1][
        "median_seconds"
    ]
    verification.pop("tensors")
    return {"run": run_dir.name, **verification, "storage": storage, "index_bits": index_bits}


def rows(numbers: dict) -> list[tuple[str, ...]]:
    storage = numbers["storage"]
    lines = []
    for name, row in numbers["runtimes"].items():
        first = not lines
        if "not_run" in row:
            lines.append((*[""] * 2, name, row["not_run"], *[""] * 7))
            continue
        lines.append(
            (
                numbers["run"] if first else "",
                f"{numbers['student']['top1']:.2f}" if first else "",
                name,
                f"**{row['top1']:.2f}**",
                f"{row['student']['top1_agreement']:.2f} %",
                f"{row['integer_student']['top1_agreement']:.2f} %",
                f"{row['operators']['equal_codes']:.3f} %",
                f"{row['integer_student']['off_by_one']:.2f} %",
                f"{1000 * row['median_seconds']:.2f}",
                " / ".join(f"{s['bytes']:,}" for s in storage.values()) if first else "",
                " / ".join(f"{s['arena_bytes']:,}" for s in storage.values()) if name == "tflm" else "",
            )
        )
    return lines


def main(run_dirs: list[str]) -> None:
    RESULTS.mkdir(exist_ok=True)
    for run_dir in map(pathlib.Path, run_dirs):
        (RESULTS / f"{run_dir.name}.json").write_text(json.dumps(measure(run_dir), indent=1) + "\n")
    lines = [HEADER, ("---",) * len(HEADER)]
    for file in sorted(RESULTS.glob("*.json")):
        lines += rows(json.loads(file.read_text()))
    for cells in lines:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
