"""What a person sees while a phase trains, and the guard that stops a diverged one."""

import math
import sys
from collections.abc import Callable

import tf_keras
from tqdm import tqdm

from qkd_tf.experiment import ExperimentError
from qkd_tf.stop_signals import StopSignals


class PhaseProgress(tf_keras.callbacks.Callback):
    """One progress bar an epoch, which names the phase and shows the running losses.

    With several steps an execution, Keras tells of the last of each alone.

    Args:
      done: of the epoch's `steps`, those before the first that Keras counts.
    """

    def __init__(self, phase: str, epoch: int, epochs: int, steps: int, done: int = 0):
        super().__init__()
        self._label = f"{phase} {epoch + 1}/{epochs}"
        self._steps, self._done = steps, done

    def on_train_begin(self, logs=None):
        quiet = not sys.stderr.isatty()
        self._bar = tqdm(
            total=self._steps, initial=self._done, desc=self._label, unit="batch", mininterval=10 if quiet else 0.1
        )

    def on_train_batch_end(self, batch, logs=None):
        self._bar.set_postfix({name: f"{value:.3f}" for name, value in logs.items()}, refresh=False)
        self._bar.update(self._done + batch + 1 - self._bar.n)

    def on_train_end(self, logs=None):
        self._bar.close()


class DivergenceGuard(tf_keras.callbacks.Callback):
    """Stops at the first batch after which a loss is no longer finite.

    Args:
      done: steps of the epoch before the first that Keras counts.
    """

    def __init__(self, phase: str, epoch: int, done: int = 0):
        super().__init__()
        self._phase, self._epoch, self._done = phase, epoch, done

    def on_train_batch_end(self, batch, logs=None):
        for name, value in logs.items():
            if not math.isfinite(value):
                raise ExperimentError(f"{name} became {value} {diverged(self._phase, self._epoch, self._done + batch)}")


class BetweenSteps(tf_keras.callbacks.Callback):
    """Lets an epoch begin in its middle, saves it every so many steps, and stops where a signal asks for it.

    Args:
      metrics: running sums, which Keras sets to 0 at the start; they go on from the values that they have now.
      done: steps of the epoch before the first that Keras counts.
      every: a checkpoint is due each time so many steps of the epoch are done; 0 for none.
      save: writes one, given the steps that are done.
    """

    def __init__(
        self,
        metrics: list[tf_keras.metrics.Metric],
        done: int,
        every: int,
        save: Callable[[int], None],
        stop: StopSignals,
    ):
        super().__init__()
        self._sums = (
            [(variable, variable.numpy()) for metric in metrics for variable in metric.variables] if done else []
        )
        self._done, self._saved = done, done
        self._every, self._save, self._stop = every, save, stop

    def on_epoch_begin(self, epoch, logs=None):
        for variable, value in self._sums:
            variable.assign(value)

    def on_train_batch_end(self, batch, logs=None):
        done = self._done + batch + 1
        if self._stop.received or (self._every and done // self._every > self._saved // self._every):
            self._save(done)
            self._saved = done
        self._stop.check()


def diverged(phase: str, epoch: int, batch: int | None = None) -> str:
    """Where training diverged, what is kept, and what to try."""
    step = "last step" if batch is None else f"step {batch + 1}"
    return (
        f"in phase {phase}, epoch {epoch + 1}, {step}; the checkpoint before it is kept. "
        "Lower --learning_rates, or try --interval_gradient_scale=lsq, in a new --run_dir"
    )
