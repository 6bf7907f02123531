"""How soon a training that was killed within an epoch is at its next step: python -m benchmarks.restart --folder=DIR

A `folder:` set of 100,000 pictures (links to few), a small network at W4A4 for one epoch. One run is never stopped. The
other one is killed once its first checkpoint within the epoch is there, and started again: from that start to the
first checkpoint after a single step, its writing included, is what is told. Then it is trained to its end, and both
students must be the same, bit for bit. Some minutes on two cores that do nothing else. Writes benchmarks/restart.json.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from benchmarks import scale_pictures
from qkd_tf.storage import durable

RESULT = pathlib.Path(__file__).parent / "restart.json"
FLAGS = (
    "--image_size=32",
    "--batch_size=128",
    "--student=resnet8",
    "--student_pixel_mean=121",
    "--student_pixel_std=64",
    "--phases=self_studying",
    "--epochs=1",
    "--weight_bits=4",
    "--activation_bits=4",
)
STEP = re.compile(r"phase0_epoch0_step(\d+)")


def start(pictures: pathlib.Path, run_dir: pathlib.Path, every_steps: int, log: pathlib.Path) -> subprocess.Popen:
    """A training in a process of its own, which remembers of pictures what --folder has seen."""
    command = [sys.executable, "-m", "qkd_tf.train", *FLAGS, f"--dataset=folder:{pictures}", f"--run_dir={run_dir}"]
    with open(log, "a") as out:
        return subprocess.Popen(
            [*command, f"--checkpoint_every_steps={every_steps}"],
            stdout=out,
            stderr=out,
            env=os.environ | {"XDG_CACHE_HOME": str(run_dir.parent.resolve() / "cache")},
        )


def newest_step(run_dir: pathlib.Path) -> int:
    """Of the checkpoints within the epoch; 0 where there is none."""
    found = (STEP.fullmatch(path.name) for path in (run_dir / "checkpoints").glob("*"))
    return max((int(match[1]) for match in found if match), default=0)


def wait_for_step(process: subprocess.Popen, run_dir: pathlib.Path, step: int) -> float:
    """Seconds until a checkpoint of that step or a later one is there."""
    begin = time.perf_counter()
    while newest_step(run_dir) < step:
        if process.poll() is not None:
            sys.exit(f"error: the training ended before step {step}, with code {process.returncode}")
        time.sleep(0.05)
    return time.perf_counter() - begin


def measure(folder: pathlib.Path, num_files: int, every_steps: int) -> dict:
    """What the two runs came to, as JSON values."""
    pictures, log = folder / "pictures", folder / "log.txt"
    scale_pictures.lay_out(pictures, None, num_files)
    run_dirs = folder / "whole", folder / "killed"
    begin = time.perf_counter()
    whole = start(pictures, run_dirs[0], every_steps, log)
    first = wait_for_step(whole, run_dirs[0], 1)
    whole.wait()
    seconds = time.perf_counter() - begin

    killed = start(pictures, run_dirs[1], every_steps, log)
    wait_for_step(killed, run_dirs[1], every_steps)
    killed.kill()
    killed.wait()
    at = newest_step(run_dirs[1])
    again = start(pictures, run_dirs[1], 1, log)
    restart = wait_for_step(again, run_dirs[1], at + 1)
    again.terminate()
    again.wait()
    end = start(pictures, run_dirs[1], every_steps, log)
    if whole.returncode or end.wait():
        sys.exit(f"error: a training failed; see {log}")
    digests = [durable.digest(run_dir / "handoff" / "weights.npz") for run_dir in run_dirs]
    return {
        "num_files": num_files,
        "whole_run_seconds": seconds,
        f"seconds_to_step_{every_steps}_at_first": first,
        "killed_after_step": at,
        "seconds_to_the_next_step": restart,
        "same_bits": digests[0] == digests[1],
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000, help="training pictures")
    parser.add_argument("--every_steps", type=int, default=300, help="of checkpoints; the kill comes at the first one")
    parser.add_argument("--folder", type=pathlib.Path, help="where to work; default: a temporary one")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(given.folder or pathlib.Path(temporary), given.files, given.every_steps)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    if not found["same_bits"]:
        sys.exit("error: the run that was killed has another student")


if __name__ == "__main__":
    main(sys.argv[1:])
