"""Peak memory of a few training steps, each kind in a process of its own: python -m benchmarks.memory NETWORK KIND."""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import pathlib
import subprocess
import sys

from benchmarks import subjects

NUM_STEPS = 6
MODELS = {"full_precision": subjects.build, "self_studying": subjects.quantized}


def peak_bytes(student: str, phase: str) -> int:
    """Peak resident memory of the process that trains, TensorFlow itself included."""
    command = [sys.executable, "-m", "benchmarks.memory", student, phase]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main(student: str, phase: str) -> None:
    step = subjects.make_step(phase, MODELS[phase](student))
    for _ in range(NUM_STEPS):
        step()
    print(resident_bytes("VmHWM"))


def resident_bytes(field: str) -> int:
    """Memory of this process: "VmHWM", the most that it ever had, or "VmRSS", what it has."""
    (line,) = (line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
