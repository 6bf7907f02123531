"""The table of microcontrollers in docs/fidelity.md: python -m benchmarks.boards_table TFLM [RUN ...]

TFLM is a checkout of tflite-micro with its downloads. Bundles of networks with random weights, calibrated at W4A4, and
of finished runs, on each emulated board and with each kernels: what the golden check prints, and what the linked
program takes beside what the export calculates. Writes benchmarks/boards/results/NAME.json and prints a table of all
that lie there. It goes on where it was stopped.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import json
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable

import tf_keras
from tf_keras import layers

from benchmarks import boards, subjects
from benchmarks.boards import BOARDS, KERNELS, Firmware
from qkd_tf.contract.gate import Gate
from qkd_tf.contract.targets import TARGETS
from tflite_export.bundles import micro_bundle
from tflite_export.bundles.bundle import Delivery
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph
from tflite_export.flatbuffer.weight_storage import store
from tflite_export.load import Handoff, load_handoff
from tflite_export.proof.verification import verify
from tflite_export.rebuilding.rebuild import rebuild

RESULTS = pathlib.Path(__file__).parent / "boards" / "results"
TARGET = TARGETS["microcontroller"]
NUM_IMAGES = 4
ARENA = re.compile(r"arena: (\d+) of (\d+) bytes")
STACK = re.compile(r"stack: (\d+) bytes")
HEADER = (
    "network",
    "core",
    "kernels",
    "golden images",
    "flash, bytes: linked",
    "calculated",
    "static RAM: linked",
    "calculated",
    "arena: in use",
    "reserved",
    "stack",
)


def depthwise(shape: tuple[int, int, int] = (16, 16, 3), num_classes: int = 10) -> tf_keras.Model:
    """Depthwise windows of 3 x 3 and 5 x 5, each before a pointwise convolution."""
    x = pixels = tf_keras.Input(shape)
    x = layers.Rescaling(1 / 64, -2.0)(x)
    x = layers.Conv2D(16, 3, 2, "same", activation="relu")(x)
    for window, width in ((3, 24), (5, 32)):
        x = layers.DepthwiseConv2D(window, padding="same", activation="relu")(x)
        x = layers.Conv2D(width, 1, activation="relu")(x)
    return tf_keras.Model(pixels, layers.Dense(num_classes)(layers.GlobalAveragePooling2D()(x)))


# The demo's network, one of depthwise convolutions, and MLPerf Tiny's.
NETWORKS: dict[str, Callable[[], tf_keras.Model]] = {
    "convnet_small": lambda: subjects.build("convnet_small", (8, 8, 1)),
    "depthwise": depthwise,
    "resnet8": lambda: subjects.build("resnet8"),
}


def random_handoff(name: str) -> Handoff:
    """Of a network of NETWORKS with random weights, always the same."""
    tf_keras.utils.set_random_seed(0)
    return load_handoff(subjects.hand_over(NETWORKS[name](), num_test=NUM_IMAGES))


def write_bundle(graph: IntegerGraph, handoff: Handoff, folder: pathlib.Path) -> tuple[pathlib.Path, dict]:
    """The bundle of a graph, its kernels packed as the target has it: its folder, and the verification.

    Raises:
      ValueError: the file is not the handoff's.
    """
    packed = store(graph, "auto", TARGET)
    content = convert(packed, "")
    verification = verify(content, packed, handoff, Gate(), TARGET, ())
    if not verification["passed"]:
        raise ValueError("; ".join(verification["failures"]))
    for name, source in micro_bundle.files(Delivery("test", content, None, handoff, verification, 0)).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(source)
    return folder / micro_bundle.FOLDER, verification


def measure(tflm: str, bundle: pathlib.Path, calculated: list[dict]) -> list[dict]:
    """For each board and kernels: what the check found, and sizes in bytes."""
    builds = [Firmware(tflm, board, kernels) for board in BOARDS for kernels in KERNELS]
    found = []
    for firmware, row in zip(builds, calculated, strict=True):
        done, size = firmware.check(bundle), firmware.size(bundle)
        arena, stack = ARENA.search(done.stdout), STACK.search(done.stdout)
        found.append(
            {
                **row,
                "passed": done.returncode == 0,
                "linked_flash_bytes": size.flash,
                "linked_ram_bytes": size.ram,
                "used_arena_bytes": int(arena[1]) if arena else None,
                "used_stack_bytes": int(stack[1]) if stack else None,
            }
        )
    return found


def cells(name: str, row: dict) -> tuple[str, ...]:
    static = row["ram_bytes"] - row["stack_bytes"]
    numbers = (
        *(row["linked_flash_bytes"], row["flash_bytes"], row["linked_ram_bytes"], static),
        *(row["used_arena_bytes"], row["arena_bytes"], row["used_stack_bytes"]),
    )
    passed = "pass" if row["passed"] else "**fail**"
    return (name, row["core"], row["kernels"], passed, *("" if n is None else f"{n:,}" for n in numbers))


def main(arguments: list[str]) -> None:
    tflm, *run_dirs = arguments or [""]
    if reason := boards.absence(tflm):
        sys.exit(f"error: {reason}")
    RESULTS.mkdir(exist_ok=True)
    subjects_by_name = {name: lambda name=name: random_handoff(name) for name in NETWORKS}
    for run_dir in map(pathlib.Path, run_dirs):
        subjects_by_name[run_dir.name] = lambda run_dir=run_dir: load_handoff(run_dir / "handoff")
    for name, handoff_of in subjects_by_name.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            handoff = handoff_of()
            graph = rebuild(handoff, TARGET.input_type, TARGET.clip)
            bundle, verification = write_bundle(graph, handoff, pathlib.Path(temporary))
            path.write_text(json.dumps(measure(tflm, bundle, verification["firmware"]), indent=1) + "\n")
    lines = [HEADER, ("---",) * len(HEADER)]
    for path in sorted(RESULTS.glob("*.json")):
        lines += [cells(path.stem, row) for row in json.loads(path.read_text())]
    for line in lines:
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
