"""What a person sees while a phase trains, and the guard that stops a diverged one."""

import math
import sys

import tf_keras
from tqdm import tqdm

from qkd_tf.experiment import ExperimentError


class PhaseProgress(tf_keras.callbacks.Callback):
    """One progress bar an epoch, which names the phase and shows the running losses.

    With several steps an execution, Keras tells of the last of each alone.
    """

    def __init__(self, phase: str, epoch: int, epochs: int, steps: int):
        super().__init__()
        self._label = f"{phase} {epoch + 1}/{epochs}"
        self._steps = steps

    def on_train_begin(self, logs=None):
        quiet = not sys.stderr.isatty()
        self._bar = tqdm(total=self._steps, desc=self._label, unit="batch", mininterval=10 if quiet else 0.1)

    def on_train_batch_end(self, batch, logs=None):
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in logs.items()}, refresh=False)
        self._bar.update(batch + 1 - self._bar.n)

    def on_train_end(self, logs=None):
        self._bar.close()


class DivergenceGuard(tf_keras.callbacks.Callback):
    """Stops at the first batch after which a loss is no longer finite."""

    def __init__(self, phase: str, epoch: int):
        super().__init__()
        self._phase, self._epoch = phase, epoch

    def on_train_batch_end(self, batch, logs=None):
        for name, value in logs.items():
            if not math.isfinite(value):
                raise ExperimentError(f"{name} became {value} {diverged(self._phase, self._epoch, batch)}")


def diverged(phase: str, epoch: int, batch: int | None = None) -> str:
    """Where training diverged, what is kept, and what to try."""
    step = "last step" if batch is None else f"step {batch + 1}"
    return (
        f"in phase {phase}, epoch {epoch + 1}, {step}; the checkpoint of the last whole epoch is kept. "
        "Lower --learning_rates, or try --interval_gradient_scale=lsq, in a new --run_dir"
    )
