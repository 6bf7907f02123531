"""What oneDNN's kernels bring a training step: python -m benchmarks.onednn [NETWORK ...]

TensorFlow chooses its kernels when it is imported, so each turn is a process of its own; processes without and with
oneDNN take turns. Prints a table.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import os
import subprocess
import sys

from benchmarks import subjects
from benchmarks.turns import measure, ratio

NUM_TURNS = 3
STEPS_A_TURN = 6
KINDS = {"without": "0", "with": "1"}


def step_seconds(network: str, setting: str) -> float:
    """Of a self-studying step at W4A4, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.onednn", "--step", network]
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": setting}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def main() -> None:
    print("| network | without, s a step | with | times as fast |\n|---|---|---|---|")
    for network in sys.argv[1:] or subjects.PAIRS:
        medians = {kind: [] for kind in KINDS}
        for _ in range(NUM_TURNS):
            for kind, setting in KINDS.items():
                medians[kind].append(step_seconds(network, setting))
        times = ratio(medians, "without", "with")
        print(f"| {network} | {min(medians['without']):.2f} | {min(medians['with']):.2f} | {times:.2f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        step = subjects.make_step("self_studying", subjects.quantized(sys.argv[2]))
        step()  # traces
        print(measure({"step": step}, 1, STEPS_A_TURN)["step"][0])
    else:
        main()
