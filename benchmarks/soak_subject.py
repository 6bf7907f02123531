"""What the soak campaign trains, and how: in processes of its own, forked from one that has TensorFlow loaded.

The parent never uses TensorFlow, so that a child is as a fresh process is, without the seconds of its imports.
"""

import dataclasses
import hashlib
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable

import tf_keras
from tf_keras import layers

from qkd_tf import flags
from qkd_tf.storage import durable
from qkd_tf.train.__main__ import main
from tflite_export.exporter import export

# All that a checkpoint has to hold: four phases, Dropout, frozen weights, estimated statistics, momentum.
FLAGS = (
    "--dataset=digits",
    "--batch_size=64",
    "--crop_padding=1",
    "--nohorizontal_flip",
    "--student=convnet_small",
    "--student_pixel_mean=0",
    "--student_pixel_std=128",
    "--teacher=benchmarks.soak_subject:teacher",
    "--teacher_pixel_mean=0",
    "--teacher_pixel_std=128",
    "--phases=full_precision,self_studying,co_studying,tutoring",
    "--epochs=2,2,2,2",
    "--learning_rates=0.05,0.01,0.01,0.01",
    "--batch_norm_batches=3",
    "--dampening=0.1",
    "--freeze_threshold_start=0.02",
)

# Less of it, which the test suite can afford.
SAMPLE_FLAGS = ("--teacher=", "--phases=self_studying", "--epochs=2", "--learning_rates=0.01")


def teacher(input_shape, num_classes) -> tf_keras.Model:
    """convnet_large in small, with Dropout."""
    x = inputs = tf_keras.Input(input_shape)
    for width in (16, 32):
        x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return tf_keras.Model(inputs, layers.Dense(num_classes)(x))


@dataclasses.dataclass(frozen=True)
class End:
    """How a process ended.

    Attributes:
      code: exit code, or minus the signal that killed it.
      log: what it has printed.
    """

    code: int
    log: str

    @property
    def complaint(self) -> str:
        """The one line of an error; "" where there is none, or more than one, or a traceback."""
        lines = [line for line in self.log.splitlines() if line.startswith("error: ")]
        return lines[0] if self.code == 1 and len(lines) == 1 and "Traceback" not in self.log else ""


class Child:
    """A forked process that runs `action`, with what it prints in `log`."""

    def __init__(self, action: Callable[[], None], log: pathlib.Path):
        self._log = log
        self.pid = os.fork()
        if not self.pid:
            _run(action, log)

    def end(self, timeout: float = 900.0) -> End | None:
        """Waits; None where it is still at work after `timeout` seconds."""
        limit = time.monotonic() + timeout
        while time.monotonic() < limit:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return End(os.waitstatus_to_exitcode(status), self._log.read_text(errors="replace"))
            time.sleep(0.02)
        return None

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _run(action: Callable[[], None], log: pathlib.Path) -> None:
    """In the child: never returns."""
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1) for number in (1, 2))
        action()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def train_it(run_dir: pathlib.Path, *more: str) -> None:
    """python -m qkd_tf.train"""
    flags.FLAGS(["train", *FLAGS, f"--run_dir={run_dir}", *more])
    main(["train"])


def export_it(run_dir: pathlib.Path) -> None:
    """python -m tflite_export"""
    try:
        export(run_dir, "phone", runtimes=("litert",))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def flag_lines(run_dir: pathlib.Path, *more: str) -> list[str]:
    """Those of flags.txt."""
    flags.FLAGS(["train", *FLAGS, f"--run_dir={run_dir}", *more])
    return flags.flag_lines()


def outcome(run_dir: pathlib.Path) -> dict[str, str]:
    """What has to be the same however a run came to its end: SHA-256 by name."""
    results = durable.read_json(run_dir / "results.json")
    told = [{key: value for key, value in phase.items() if "seconds" not in key} for phase in results["phases"]]
    for phase in told:
        phase["history"] = [{k: v for k, v in row.items() if k != "seconds"} for row in phase["history"]]
    files = ("handoff/weights.npz", "handoff/integer_logits.npz", "export/model.tflite")
    return {
        "history": hashlib.sha256(repr(told).encode()).hexdigest(),
        **{name: durable.digest(run_dir / name) for name in files},
    }
