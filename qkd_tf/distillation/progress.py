"""What the terminal shows while a phase trains, and the guard that stops a diverged phase."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

import tf_keras
from tqdm import tqdm

from qkd_tf.experiment import ExperimentError
from qkd_tf.process.stop_signals import StopSignals

SETTLED = 3  # steps after the first one from which on the time left is shown
TICK = 1e-9  # seconds


class _Bar(tqdm):
    """A bar whose rate leaves out the first step, which also builds and compiles the graph."""

    _first: tuple[float, int] | None = None  # seconds and steps where the first one ended

    def steps_done(self, number: int) -> None:
        """Shows that `number` steps of the phase are done."""
        self._first = self._first or (self._time(), number)
        self.update(number - self.n)

    @property
    def format_dict(self) -> dict:
        told = super().format_dict
        seconds, steps = self._first or (0.0, self.n)
        if self.n - steps < SETTLED:
            return told | {"initial": self.n, "rate": None}  # which shows neither a rate nor a time left
        return told | {"rate": (self.n - steps) / max(self._time() - seconds, TICK)}


class PhaseProgress(tf_keras.callbacks.Callback):
    """One line per phase, for all its epochs: time left, running losses and top-1, and top-1 of the last validation.

    With several steps per execution, Keras reports only the last of each.

    Args:
      steps: steps per epoch.
      done: steps of the phase that an earlier run did.
    """

    def __init__(self, phase: str, epochs: int, steps: int, done: int = 0):
        super().__init__()
        self._phase, self._epochs, self._steps = phase, epochs, steps
        self._before, self._running, self._validation = done, "", ""
        self._bar = _Bar(
            desc=phase,
            total=epochs * steps,
            initial=done,
            unit="batch",
            mininterval=0.1 if sys.stderr.isatty() else 10,
            bar_format="{desc} {percentage:3.0f}% [{elapsed}<{remaining}, {rate_fmt}]{postfix}",
        )

    def begin(self, epoch: int, done: int = 0) -> "PhaseProgress":
        """The callback of an epoch, counted from 0, of which `done` steps precede the first that Keras counts."""
        self._before = epoch * self._steps + done
        self._bar.set_description_str(f"{self._phase}, epoch {epoch + 1}/{self._epochs}", False)
        return self

    def on_train_batch_end(self, batch, logs=None):
        self._running = ", ".join(_figures(logs))
        self._show()
        self._bar.steps_done(self._before + batch + 1)

    def validated(self, top1: Mapping[str, float]) -> None:
        """Shows a validation's result: top-1 in percent by network."""
        self._validation = "; validation: " + ", ".join(f"{name} {value:.2f} %" for name, value in top1.items())
        self._show()

    def tell(self, lines: Iterable[str]) -> None:
        """Prints lines above the bar."""
        for line in lines:
            self._bar.write(line)

    def close(self) -> None:
        self._bar.close()

    def _show(self) -> None:
        self._bar.set_postfix_str(self._running + self._validation, refresh=False)


def _figures(logs: Mapping[str, float]) -> Iterator[str]:
    """Losses and, in percent, shares of right answers, in the order of Keras' metric names."""
    for name, value in logs.items():
        told = name.replace("_", " ")
        yield f"{told} {100 * value:.1f} %" if name.endswith("top1") else f"{told} {value:.3f}"


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
    """Lets an epoch begin in its middle, saves every so many steps, and stops when a signal asks for it.

    Args:
      metrics: running sums, which Keras would reset to 0 at the start; they continue from their present values.
      done: steps of the epoch before the first that Keras counts.
      every: a checkpoint is written after each such number of steps of the epoch; 0 for never.
      save: writes one, given the number of steps done.
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
    """A line: where training diverged, what is kept, and what to try."""
    step = "last step" if batch is None else f"step {batch + 1}"
    return (
        f"in phase {phase}, epoch {epoch + 1}, {step}; the previous checkpoint is kept. "
        "Lower --learning_rates, or try --interval_gradient_scale=lsq, in a new --run_dir"
    )
