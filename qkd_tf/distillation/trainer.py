"""Runs the phases in order: epochs, checkpoints, resuming."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from qkd_tf.data import Splits
from qkd_tf.distillation import collapse
from qkd_tf.distillation.distiller import Distiller
from qkd_tf.distillation.distribution import ONE_DEVICE, Distribution
from qkd_tf.distillation.mixed_precision import training_in
from qkd_tf.distillation.phase_setup import Networks, PhaseSetup
from qkd_tf.distillation.phases import PHASES, Phase
from qkd_tf.distillation.progress import BetweenSteps, DivergenceGuard, PhaseProgress, diverged
from qkd_tf.distillation.summaries import Summaries
from qkd_tf.distillation.weights_average import WeightsAverage
from qkd_tf.evaluate import predict_each, top1_of
from qkd_tf.experiment import FEW_WRONG, ExperimentError, TrainingSpec
from qkd_tf.process import random_state
from qkd_tf.process.stop_signals import StopSignals
from qkd_tf.quantization.batch_norm import BatchNormEstimator, BatchNormShift
from qkd_tf.quantization.oscillation import Freezing
from qkd_tf.quantization.scheme import QuantizedStudent
from qkd_tf.storage.checkpoints import Checkpoints, restore
from qkd_tf.storage.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Place:
    """Where training happens.

    Attributes:
      stop: looked at between steps.
    """

    folder: RunFolder
    stop: StopSignals = dataclasses.field(default_factory=StopSignals)
    distribution: Distribution = ONE_DEVICE


@dataclasses.dataclass(frozen=True)
class Events:
    """What an experiment does at certain points of training.

    Attributes:
      calibrate: sets the student's intervals from its float weights; called when a quantized phase follows a float
        start or a float phase.
      after_full_precision: called after a float phase, with the float networks as it left them.
      after_epoch: called with the phase's label, the epoch in it from 0, and its losses, top-1 and seconds, once they
        are saved. An exception in it ends training, which then resumes after that epoch.
      calibrate_at: sets the intervals of one of the networks' students from the weights in its `plain`; called when a
        phase has other bit widths than the one before, or begins at other bit widths than the networks' own.
      after_phase: called at a phase's end with its label, and the last epoch's validation top-1 in percent by network;
        the teacher is among them if the phase trained it.
    """

    calibrate: Callable[[], None] = lambda: None
    after_full_precision: Callable[[], None] = lambda: None
    after_epoch: Callable[[str, int, Mapping[str, float]], None] = lambda phase, epoch, logs: None
    calibrate_at: Callable[[QuantizedStudent], None] = lambda student: None
    after_phase: Callable[[str, Mapping[str, float]], None] = lambda phase, top1: None


class Trainer:
    """Runs an experiment's phases one after the other; resumes where a killed run stopped.

    After each phase the student continues from its best epoch on the validation split, with what was frozen then, or
    from its last epoch (`TrainingSpec.keep_epoch`). The teacher continues from its last epoch. If weights are averaged
    (`TrainingSpec.weights_ema`), an epoch's student is the average at its end: it is validated, kept and handed on,
    while training continues from the weights themselves.

    If the next phase has other bit widths (`PhaseSpec.bits`), a student at these takes over weights and BatchNorm
    statistics, and its intervals are calibrated anew. Full precision stays in the `plain` of the networks' own student.

    A checkpoint is written after every epoch, every `TrainingSpec.checkpoint_every_steps` steps, and when a signal asks
    to stop. It has the networks, the best epoch's student, optimizers, running losses and the state of random layers.
    Batches are a function of seed and epoch, so a resumed run equals the uninterrupted one to the bit.

    Args:
      networks: created in the scope of `place.distribution`.
      events: what the experiment does on the way.
      class_weights: as in `losses.cross_entropy`.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        networks: Networks,
        splits: Splits,
        place: Place,
        events: Events = Events(),
        class_weights: Sequence[float] | None = None,
    ):
        self._spec, self._splits, self._place, self._events = spec, splits, place, events
        self._networks, self._class_weights = networks, class_weights
        self._teacher, self._pretrained = networks.teacher, networks.pretrained
        self._checkpoints = Checkpoints(place.folder.checkpoints, place.folder.experiment)
        self._best_student: list[np.ndarray] = []
        self._batch_norm_batches = spec.num_batch_norm_batches
        self._shifts = spec.shifts_trained_statistics(self._pretrained, splits.num_train)
        self._may_keep_start = spec.may_keep_start(self._pretrained, splits.num_train)
        own, *others = (student.model for student in networks.students.values())
        models = (networks.student.plain, own, self._teacher, *others)
        self._random = random_state.generators(*(model for model in models if model is not None))
        self._turn_to(networks.student)

    def _turn_to(self, student: QuantizedStudent) -> None:
        """Switches to this one of the networks' students, and makes anew what belongs to it."""
        spec, networks = self._spec, self._networks
        self._student = student
        self._batch_norm = (
            BatchNormShift(student.plain, student.model) if self._shifts else BatchNormEstimator(student.model)
        )
        with self._place.distribution.scope():
            self._freezing = Freezing(student.weights) if spec.freeze_threshold_start else None
            self._average = WeightsAverage(student.trained_variables, spec.weights_ema) if spec.weights_ema else None
        self._setup = PhaseSetup(
            spec,
            dataclasses.replace(networks, student=student),
            self._splits.steps_per_epoch,
            self._freezing,
            self._average,
            self._class_weights,
        )
        (role,) = (role for role, known in networks.students.items() if known is student)
        parts = {"plain": networks.student.plain, role: student.model, "teacher": self._teacher}
        parts |= {"freezing": self._freezing, "average": self._average}
        self._parts = {role: part for role, part in parts.items() if part is not None}

    def run(self) -> list[dict]:
        """Trains what is not trained yet.

        Returns:
          One dict per phase: label, bit widths if they are named, epochs, best epoch, losses by epoch, test top-1 of
          student and teacher in percent, seconds. For quantized phases also the number of batches from which
          BatchNorm was estimated, the intervals at the start and by epoch, in the order of
          `QuantizedStudent.intervals`, and if weights are frozen, their percentage by epoch.

        Raises:
          ExperimentError: a loss diverged; or there are checkpoints, and none is sound.
          OSError: a checkpoint cannot be written.
          Stopped: a signal came; the current step is finished and saved.
        """
        with self._place.stop.deferred():
            return self._run_phases()

    def _run_phases(self) -> list[dict]:
        checkpoint, progress = self._checkpoints.newest() or (None, START)
        if checkpoint:
            print(self._resumption(progress))
        if checkpoint and not _within_phase(progress):
            self._turn_to(self._networks.student_in(self._spec.phases[progress["phase"] - 1]))
            self._restore(checkpoint)
        if not self._spec.phases:
            self._student.copy_weights_from_plain()
            self._events.calibrate()
            if self._spec.batch_norm_batches > 0:  # the default is for what training leaves behind
                batches = self._splits.train(0).take(self._spec.batch_norm_batches)
                self._batch_norm.estimate(images for images, _ in batches)
        for index in range(progress["phase"], len(self._spec.phases)):
            result = self._run_phase(index, progress, checkpoint)
            progress = {**START, "phase": index + 1, "results": progress["results"] + [result]}
            self._save(progress)
        return progress["results"]

    def _resumption(self, progress: dict) -> str:
        """A line: where training resumes from a checkpoint."""
        index, labels = progress["phase"], self._spec.phase_labels
        if index == len(labels):
            return f"resumes after {labels[-1]}: all phases are trained"
        step = f", after step {progress['step']} of {self._splits.steps_per_epoch}" if progress["step"] else ""
        return f"resumes {labels[index]} at epoch {progress['epoch'] + 1} of {self._spec.phases[index].epochs}{step}"

    def _run_phase(self, index: int, progress: dict, checkpoint: pathlib.Path | None) -> dict:
        phase_spec, label = self._spec.phases[index], self._spec.phase_labels[index]
        phase = PHASES[phase_spec.name]
        left = self._student
        if (student := self._networks.student_in(phase_spec)) is not left:
            self._turn_to(student)
        with self._place.distribution.scope():
            distiller = self._setup.distiller(index)
        epochs_before = sum(earlier.epochs for earlier in self._spec.phases[:index])
        if _within_phase(progress):
            self._best_student = self._restore(checkpoint, distiller)
        else:
            previous = PHASES[self._spec.phases[index - 1].name] if index else PHASES["full_precision"]
            if index and phase.quantized and not previous.quantized and "student" not in self._pretrained:
                self.estimate_plain_statistics(self._networks.student, epochs_before)
            self._enter(phase, previous, left, epochs_before)
            if phase_spec.bits:
                print(f"{label}: {self._student.summary()}")
            if self._average:
                self._average.reset(self._student.trained_variables)
            progress = {**progress, "first_intervals": self._student.intervals()}
            if phase.quantized and self._may_keep_start:
                top1 = _top1_each({"student": distiller.student}, self._splits.validation)["student"]
                progress |= {"best": self._keep(0, top1)}
        steps = self._splits.steps_per_epoch
        done = progress["epoch"] * steps + progress["step"]
        with (
            contextlib.closing(Summaries(self._place.folder.logs)) as summaries,
            contextlib.closing(PhaseProgress(label, phase_spec.epochs, steps, done)) as shown,
        ):
            while progress["epoch"] < phase_spec.epochs:
                progress = self._run_epoch(distiller, epochs_before + progress["epoch"], progress, summaries, shown)
        self._restore_best_student()
        if not phase.quantized:
            self._events.after_full_precision()
        networks = {"student": distiller.student, "teacher": distiller.teacher}
        tested = _top1_each({role: model for role, model in networks.items() if model is not None}, self._splits.test)
        result = {
            "phase": label,
            **dict(zip(("weight_bits", "activation_bits"), phase_spec.bits or (), strict=False)),
            "epochs": phase_spec.epochs,
            "learning_rate": phase_spec.learning_rate,
            "best_epoch": progress["best"]["epoch"],
            "best_validation_top1": progress["best"]["validation_top1"],
            "student_test_top1": tested["student"],
            "seconds": sum(row["seconds"] for row in progress["history"]),
            "history": progress["history"],
        }
        if phase.quantized:
            result["batch_norm_batches"] = self._batch_norm_batches
            result["first_intervals"] = progress["first_intervals"]
        if "teacher" in tested:
            result["teacher_test_top1"] = tested["teacher"]
        print(_line(result))
        last = progress["history"][-1]
        self._events.after_phase(label, {role: last[name] for role, name in VALIDATED.items() if name in last})
        return result

    def _run_epoch(
        self, distiller: Distiller, number: int, progress: dict, summaries: Summaries, shown: PhaseProgress
    ) -> dict:
        """Trains epoch `number`, counted over all phases, to its end; validates, saves and reports it.

        Returns:
          The progress after the epoch.
        """
        epoch, phase = progress["epoch"], distiller.phase
        label = self._spec.phase_labels[progress["phase"]]
        start = time.monotonic() - progress["seconds"]
        self._fit_rest_of_epoch(distiller, number, progress, start, shown)
        row = {metric.name: float(metric.result()) for metric in distiller.metrics}
        with self._averaged(phase):
            if phase.quantized and self._batch_norm_batches:
                batches = self._splits.train(number).take(self._batch_norm_batches)
                self._batch_norm.estimate(images for images, _ in batches)
            if phase.quantized and self._freezing:
                row["frozen_weights"] = self._freezing.share()
            networks = {"student": distiller.student}
            if distiller.teacher_groups:  # else it is as it was
                networks["teacher"] = distiller.teacher
            logits, labels = predict_each(networks, self._splits.validation)
            row |= {VALIDATED[role]: top1_of(found, labels) for role, found in logits.items()}
            row["seconds"] = time.monotonic() - start
            self._require_finite(label, epoch)
            scalars = dict(row)
            if phase.quantized:
                row["intervals"] = self._student.intervals()
                shown.tell(self._collapse_notes(progress, row["intervals"], logits["student"]))
                shown.tell(self._loss_notes(progress, row["validation_top1"], len(labels)))
            best = progress["best"] if self._spec.keep_epoch == "best" else None
            if _is_better(row["validation_top1"], best, self._room_below_start(len(labels))):
                best = self._keep(epoch + 1, row["validation_top1"])
        history = progress["history"] + [row]
        progress = {**progress, "epoch": epoch + 1, "step": 0, "seconds": 0.0, "best": best, "history": history}
        self._save(progress, distiller)
        with self._averaged(phase):
            summaries.write(label, scalars, self._student if phase.quantized else None, number + 1)
        shown.validated({role: row[name] for role, name in VALIDATED.items() if name in row})
        self._events.after_epoch(label, epoch, scalars)
        self._place.stop.check()
        return progress

    def _room_below_start(self, num_images: int) -> float:
        """How many points below the phase's start an epoch may be and still replace it; 0 if it must be better."""
        return 100 * (FEW_WRONG + 0.5) / num_images if self._student.needs_training else 0.0

    def _keep(self, epoch: int, top1: float) -> dict:
        """Keeps the present student as the phase's best so far; `epoch` counts in the phase, and 0 is its start."""
        self._best_student = [variable.numpy() for variable in self._student_variables()]
        return {"epoch": epoch, "validation_top1": top1}

    def _collapse_notes(self, progress: dict, intervals: list[float], logits: np.ndarray) -> list[str]:
        """Notes on an epoch; `progress` is that before it."""
        tensors = [f"{layer} {what}" for layer, what, *_ in self._student.coverage()[1:]]
        first = progress["first_intervals"]
        before = progress["history"][-1]["intervals"] if progress["history"] else first
        return collapse.notes(tensors, first, before, intervals, logits)

    def _loss_notes(self, progress: dict, top1: float, num_images: int) -> list[str]:
        """A note if a phase may keep the student with which it began, and its first epoch ends far below that one."""
        start = progress["best"]
        if progress["epoch"] or not start or start["epoch"]:
            return []
        lost = start["validation_top1"] - top1
        if lost <= POINTS_LOST or lost * num_images / 100 <= MANY_WRONG:
            return []
        return [
            f"note: the first epoch cost the student {lost:.2f} points of validation, {start['validation_top1']:.2f} % "
            f"before it, {top1:.2f} % now; if later epochs do not bring them back, lower --learning_rates to a tenth"
        ]

    @contextlib.contextmanager
    def _averaged(self, phase: Phase) -> Iterator[None]:
        """A context in which a quantized student has its averaged weights, if they are averaged; then its own again.

        BatchNorm statistics stay as they are.
        """
        if not (self._average and phase.quantized):
            yield
            return
        with self._average.in_place(self._student.trained_variables):
            if self._freezing:
                self._freezing.hold(self._student.weights)
            yield

    def _fit_rest_of_epoch(
        self, distiller: Distiller, number: int, progress: dict, start: float, shown: PhaseProgress
    ) -> None:
        """Trains the remaining steps of epoch `number`, counted over all phases."""
        label = self._spec.phase_labels[progress["phase"]]
        epoch, done, steps = progress["epoch"], progress["step"], self._splits.steps_per_epoch
        if done == steps:  # a signal came at the last one
            return

        def save(step: int) -> None:
            self._require_finite(label, epoch, step)
            self._save({**progress, "step": step, "seconds": time.monotonic() - start}, distiller)

        with training_in(self._spec.mixed_precision):
            distiller.fit(
                self._place.distribution.divide(functools.partial(self._splits.train, number, done)),
                steps_per_epoch=steps - done,
                verbose=0,
                callbacks=[
                    DivergenceGuard(label, epoch, done),
                    shown.begin(epoch, done),
                    BetweenSteps(distiller.metrics, done, self._spec.checkpoint_every_steps, save, self._place.stop),
                ],
            )

    def estimate_plain_statistics(self, student: QuantizedStudent, epoch: int) -> None:
        """Estimates `plain`'s BatchNorm statistics before calibration; they may be those of other weights or widths.

        Args:
          epoch: the epoch whose batches are used, counted from 0 over all phases.
        """
        if self._batch_norm_batches:
            batches = self._splits.train(epoch).take(self._batch_norm_batches)
            BatchNormEstimator(student.plain).estimate(images for images, _ in batches)

    def _enter(self, phase: Phase, previous: Phase, left: QuantizedStudent, epoch: int) -> None:
        """Carries the student's weights over if its precision or its bit widths change.

        Args:
          left: the student that the phase before trained.
          epoch: the phase's first epoch, counted over all phases.
        """
        own, student = self._networks.student, self._student
        if previous.quantized and not phase.quantized:
            left.copy_weights_to_plain()
            own.copy_plain_from(left)
            return
        if phase.quantized and not previous.quantized:
            own.copy_weights_from_plain()
            self._events.calibrate()
            if student is not own:
                student.copy_plain_from(own)
                student.copy_weights_from_plain()
                self._events.calibrate_at(student)
        elif student is not left:
            self._take_over(left, epoch)
        else:
            return
        if self._freezing:
            self._freezing.reset(student.weights)

    def _take_over(self, left: QuantizedStudent, epoch: int) -> None:
        """Gives the student what one at other bit widths has learned; afterwards `plain` is full precision's again."""
        own, student = self._networks.student, self._student
        full_precision = own.plain.get_weights()
        left.copy_weights_to_plain()
        student.copy_plain_from(left)
        if not self._shifts:  # shifted statistics are full precision's, and better than those of few pictures
            self.estimate_plain_statistics(student, epoch)
        student.copy_weights_from_plain()
        self._events.calibrate_at(student)
        own.plain.set_weights(full_precision)
        student.copy_plain_from(own)

    def _require_finite(self, phase: str, epoch: int, step: int | None = None) -> None:
        """Checks the last update, which no later loss would show to have diverged."""
        for role, part in self._parts.items():
            for variable in part.variables:
                if not np.all(np.isfinite(variable.numpy())):
                    where = diverged(phase, epoch, None if step is None else step - 1)
                    raise ExperimentError(f"{role}: {variable.name} is no longer finite {where}")

    def _save(self, progress: dict, distiller: Distiller | None = None) -> None:
        self._checkpoints.write(progress, self._state(distiller), self._best_student)

    def _restore(self, checkpoint: pathlib.Path, distiller: Distiller | None = None) -> list[np.ndarray]:
        best_student = restore(checkpoint, self._state(distiller))
        self._student.copy_plain_from(self._networks.student)
        return best_student

    def _state(self, distiller: Distiller | None) -> tf.train.Checkpoint:
        """Everything that training changes; without a distiller, the state between two phases."""
        of_phase = {}
        if distiller is not None:
            optimizers = [group.optimizer for group in distiller.student_groups + distiller.teacher_groups]
            optimizers += filter(None, (distiller.student_loss_scale, distiller.teacher_loss_scale))
            of_phase = {"optimizers": optimizers, "metrics": distiller.metrics}
        return tf.train.Checkpoint(**self._parts, random=self._random, **of_phase)

    def _student_variables(self) -> list[tf.Variable]:
        """The student's variables that are kept of its best epoch."""
        moves_on = ("teacher", "average")
        return [v for role, part in self._parts.items() if role not in moves_on for v in part.variables]

    def _restore_best_student(self) -> None:
        for variable, value in zip(self._student_variables(), self._best_student, strict=True):
            variable.assign(value)
        self._best_student = []


# What a checkpoint has besides weights: where training continues, the results of finished phases, and for the current
# phase its epochs, the best of them, and the seconds spent on its unfinished epoch.
START = {"phase": 0, "epoch": 0, "step": 0, "seconds": 0.0, "results": [], "history": [], "best": None}


# Network -> its name in a row of the history.
POINTS_LOST, MANY_WRONG = 10.0, 5  # of validation, in percent and images, that a first epoch may lose without a word
VALIDATED = {"student": "validation_top1", "teacher": "teacher_validation_top1"}


def _is_better(top1: float, best: dict | None, room: float) -> bool:
    """Whether an epoch replaces the best so far: equal later ones do, and one within `room` of the phase's start."""
    if best is None:
        return True
    return top1 >= best["validation_top1"] if best["epoch"] else top1 > best["validation_top1"] - room


def _top1_each(models: dict[str, tf_keras.Model], batches: tf.data.Dataset) -> dict[str, float]:
    """Top-1 in percent by name, in one pass."""
    logits, labels = predict_each(models, batches)
    return {name: top1_of(found, labels) for name, found in logits.items()}


def _within_phase(progress: dict) -> bool:
    return bool(progress["epoch"] or progress["step"])


def _line(result: dict) -> str:
    """A phase's outcome in one line."""
    teacher = f", teacher {result['teacher_test_top1']:.2f} %" if "teacher_test_top1" in result else ""
    widths = f" at w{result['weight_bits']}a{result['activation_bits']}" if "weight_bits" in result else ""
    validation = f"(validation {result['best_validation_top1']:.2f} %)"
    kept = f"epoch {result['best_epoch']} of {result['epochs']} {validation} is kept"
    if not result["best_epoch"]:
        none = "its one epoch was not" if result["epochs"] == 1 else f"none of {result['epochs']} epochs was"
        kept = f"{none} better than the student before the phase {validation}, which is kept"
    return f"{result['phase']}{widths}: {kept}; test: student {result['student_test_top1']:.2f} %{teacher}"
