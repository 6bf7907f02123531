"""Where the time of a step goes, by TensorFlow's profiler: python -m benchmarks.profile NETWORK [FOLDER].

Prints milliseconds a step by kind of operation, full precision beside self-studying. Operations run beside each other
on all cores, so that they add up to more than the step. FOLDER keeps the traces for TensorBoard.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import collections
import pathlib
import sys
import tempfile

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import subjects
from benchmarks.memory import MODELS

NUM_STEPS = 8
NUM_ROWS = 18


def by_operation(phase: str, name: str, folder: pathlib.Path) -> collections.Counter:
    step = subjects.make_step(phase, MODELS[phase](name))
    for _ in range(3):
        step()
    tf.profiler.experimental.start(str(folder), tf.profiler.experimental.ProfilerOptions(host_tracer_level=2))
    for _ in range(NUM_STEPS):
        step()
    tf.profiler.experimental.stop()
    space = xplane_pb2.XSpace()
    space.ParseFromString(next(folder.rglob("*.xplane.pb")).read_bytes())
    milliseconds: collections.Counter = collections.Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            name, _, operation = plane.event_metadata[event.metadata_id].name.rpartition(":")
            if name and not name.endswith(":"):  # "layer/Mul:Mul", not "ExecutorState::Process"
                milliseconds[operation] += event.duration_ps / 1e9 / NUM_STEPS
    return milliseconds


def main(name: str = "resnet20", folder: str = "") -> None:
    tf.get_logger().setLevel("ERROR")
    root = pathlib.Path(folder or tempfile.mkdtemp())
    found = {phase: by_operation(phase, name, root / phase) for phase in MODELS}
    print(f"{'ms a step':48}" + "".join(f"{phase:>16}" for phase in found))
    for operation, _ in sum(found.values(), collections.Counter()).most_common(NUM_ROWS):
        print(f"{operation:48}" + "".join(f"{row[operation]:16.1f}" for row in found.values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
