"""One training, from images to handoff."""

import contextlib
import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from qkd_tf import data, networks
from qkd_tf.console.examples import speaking_of_examples
from qkd_tf.contract.course import Course, discarded_epochs
from qkd_tf.contract.gate import Gate, counts
from qkd_tf.distillation import step_memory, strategies
from qkd_tf.distillation.distribution import ONE_DEVICE, Distribution
from qkd_tf.distillation.listeners import Listener
from qkd_tf.distillation.mixed_precision import check_device
from qkd_tf.distillation.phase_setup import Networks
from qkd_tf.distillation.phases import PHASES
from qkd_tf.distillation.trainer import Events, Place, Trainer
from qkd_tf.experiment import (
    Experiment,
    ExperimentError,
    TrainingSpec,
    class_weights,
    require_class_weights,
    require_networks,
)
from qkd_tf.models import identity, likeness
from qkd_tf.outcome import diagnosis, handoff, results, start
from qkd_tf.process import borrowed_process
from qkd_tf.process.stop_signals import StopSignals
from qkd_tf.quantization import bytes_by_bits, integer_limits
from qkd_tf.quantization.batch_norm import BatchNormEstimator, BatchNormShift
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.equalization import equalize_channels, equalize_deviations
from qkd_tf.quantization.integer_student import IntegerStudent
from qkd_tf.quantization.scheme import QuantizedStudent, quantize_student, quantizer_implementation
from qkd_tf.search import found_bits
from qkd_tf.search.subject import Examples
from qkd_tf.storage import durable
from qkd_tf.storage.checkpoints import Checkpoints
from qkd_tf.storage.folder_lock import locked
from qkd_tf.storage.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class InMemory:
    """What Python passes as objects; what is None is opened by its name in the experiment.

    Attributes:
      notes: printed once networks and images are accepted.
    """

    source: data.Source | None = None
    augment: data.Function | None = None
    after_epoch: Listener | None = None
    student: tf_keras.Model | None = None
    teacher: tf_keras.Model | None = None
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What will be trained, and on what.

    Attributes:
      float_student: the float student in standard form, with its first weights.
      as_given: the trained student with the user's padding values, where the file's make another network of it.
      contents: what the experiment is made of, as digests (`identity`).
      class_weights: factor of each class's examples; None if all are 1.
      proof: what `Network.prove` returned, by role.
      at_bits: the student by bit widths, as in `Networks`.
    """

    student: QuantizedStudent
    float_student: tf_keras.Model
    as_given: tf_keras.Model | None
    teacher: tf_keras.Model | None
    splits: data.Splits
    contents: dict[str, str]
    class_weights: list[float] | None
    proof: dict[str, dict | None]
    at_bits: dict[tuple[int, int], QuantizedStudent]

    @property
    def networks(self) -> list[tuple[str, tf_keras.Model | None]]:
        """The float networks, by role."""
        return [("student", self.student.plain), ("teacher", self.teacher)]


def run(
    experiment: Experiment,
    folder: RunFolder,
    stop: StopSignals,
    devices: Distribution = ONE_DEVICE,
    given: InMemory = InMemory(),
    is_told: bool = False,
) -> None:
    """One experiment from images to handoff, in a seeded process.

    Args:
      folder: each of several workers has its own; see `own_folder`.
      devices: those that train.
      is_told: whether its notes were printed before.

    Raises:
      ExperimentError: data, networks or weights that do not fit; a loss that diverged.
      OSError: the run folder is in use, or cannot be written.
      Stopped: a signal came.
      tf.errors.OpError: another worker was lost.
    """
    source = given.source or data.open_source(experiment.data)
    with speaking_of_examples(source.input_params is not None, (ExperimentError,)):
        _run(experiment, source, folder, stop, devices, given, is_told)


def _run(
    experiment: Experiment,
    source: data.Source,
    folder: RunFolder,
    stop: StopSignals,
    devices: Distribution,
    given: InMemory,
    is_told: bool,
) -> None:
    experiment, prepared, look = _begin(experiment, source, folder, devices, given, is_told)
    student, splits = prepared.student, prepared.splits
    images = _calibration_images(experiment, splits)

    def init_intervals() -> None:
        _calibrate(experiment, student, images)
        look.at("quantized", student.model)
        look.keep()
        training = experiment.training
        if training.phases and (problem := integer_limits.first_beyond(IntegerStudent(student))):
            print(f"note: after calibration no file can hold the student: {problem}; training must change its scales")
        if training.phases and training.keep_epoch == "best":
            keeps_start = training.may_keep_start(experiment.pretrained, splits.num_train)
            for note in look.notes_on_calibration(keeps_start, student.needs_training):
                print(note)

    def after_phase(phase: str, top1: Mapping[str, float]) -> None:
        if "teacher" in top1 and experiment.teacher_begins:
            for note in look.notes_on_phase(phase, top1["teacher"]):
                print(note)

    def init_intervals_of(at_other_bits: QuantizedStudent) -> None:
        _equalize_deviations(at_other_bits)
        calibrate(at_other_bits, images, experiment.quantization.interval_init, experiment.seed)

    with locked(folder.path):
        folder.claim(prepared.contents, identity.WORDS)
        has_only_its_end = devices.is_alone and folder.is_finished and not folder.has_checkpoint
        if has_only_its_end and experiment.training.phases:
            print(
                f"note: {folder.path} is finished, and its checkpoints are gone, so nothing is trained; to train it "
                "again, give another --run_dir"
            )
            return
        if folder.is_finished:
            print(f"note: {folder.path} is finished already: nothing is left to train")
            if devices.is_alone and (found := results.still_valid(folder)):
                print(f"test top-1 as the file computes it: {found['student_test_top1']:.2f} %")
                return
        look.keep()
        place = Place(folder, stop, devices)
        events = Events(init_intervals, calibrate_at=init_intervals_of, after_phase=after_phase)
        phases = _trainer(experiment, experiment.training, prepared, place, given, events).run()
        if phases:
            notes = look.notes_on_end(phases[-1]["best_validation_top1"])
            if discarded_epochs(phases):
                course = Course.of(dataclasses.asdict(experiment), str(experiment.run_dir))
                notes += look.notes_on_discarded_training(course.with_last_epoch())
        else:
            notes = [] if "student" in experiment.pretrained else look.notes_on_no_training()
        for note in notes:
            print(note)
        if devices.is_chief:
            origin = "statistics" if look.has_other_statistics else experiment.full_precision_origin
            reference = diagnosis.Reference(student, origin, prepared.as_given)
            handed_over = handoff.write(student, splits, folder, experiment.target, reference.look)
            print(f"test top-1 as the file computes it: {handed_over.accuracy}")
            if note := handed_over.accuracy.note(phases[-1]["student_test_top1"] if phases else None):
                print(note)
            if note := _note_on_gate(experiment, handed_over.accuracy.paired):
                print(note)
            facts = diagnosis.write(handed_over, reference, folder)
            results.write(folder, experiment, splits, handed_over, phases, facts, prepared.proof, look.found)
    devices.wait()


def _note_on_gate(experiment: Experiment, accuracy: Mapping[str, Any]) -> str:
    """A note if the export will refuse the file for its accuracy, and what to do; else ""."""
    if not Gate().finds_worse(accuracy):
        return ""
    course = Course.of(dataclasses.asdict(experiment), str(experiment.run_dir))
    return f"note: the export will refuse this file: {counts(accuracy)}; {course.more_accurate(course.target)}"


def find_bits(
    experiment: Experiment,
    folder: RunFolder,
    stop: StopSignals,
    devices: Distribution = ONE_DEVICE,
    given: InMemory = InMemory(),
) -> None:
    """The part of --bits=auto before `run`, with the same arguments: trains the leading float phases, measures the
    student, and writes `folder.bits`. Training then starts again, at once or in a later process.
    """
    source = given.source or data.open_source(experiment.data)
    with speaking_of_examples(source.input_params is not None, (ExperimentError,)):
        _find_bits(experiment, source, folder, stop, devices, given)


def _find_bits(
    experiment: Experiment,
    source: data.Source,
    folder: RunFolder,
    stop: StopSignals,
    devices: Distribution,
    given: InMemory,
) -> None:
    experiment, prepared, look = _begin(experiment, source, folder, devices, given)
    floats = itertools.takewhile(lambda phase: not PHASES[phase.name].quantized, experiment.training.phases)
    training = dataclasses.replace(experiment.training, phases=tuple(floats))
    with locked(folder.path):
        folder.claim(prepared.contents, identity.WORDS)
        look.keep()
        if training.phases:
            trainer = _trainer(experiment, training, prepared, Place(folder, stop, devices), given, Events())
            trainer.run()
            if "student" not in experiment.pretrained:
                epochs = sum(phase.epochs for phase in training.phases)
                trainer.estimate_plain_statistics(prepared.student, epochs)
        splits, plain = prepared.splits, prepared.float_student
        for layer in plain.layers:
            layer.set_weights(prepared.student.plain.get_layer(layer.name).get_weights())
        if experiment.equalized_spread is not None:
            equalize_channels(plain, experiment.equalized_spread)
        examples = Examples(_calibration_images(experiment, splits), splits.validation)
        found = found_bits.find(experiment, plain, examples, folder.bits, splits.fingerprint)
        devices.require_same(found, "the widths that --bits=auto finds")


def _begin(
    experiment: Experiment,
    source: data.Source,
    folder: RunFolder,
    devices: Distribution,
    given: InMemory,
    is_told: bool = False,
) -> tuple[Experiment, Prepared, start.Look]:
    """The experiment for its images, its networks, and their accuracy before training."""
    experiment = networks.on_source(experiment, source, devices.num_replicas)
    devices.require_divides(experiment.data.batch_size)
    prepared = _prepare(experiment, devices, given, source, is_told)
    look = start.Look(prepared.splits, folder.start)
    look.at("student", prepared.student.plain, experiment.student.starts_by_chance)
    if "student" in experiment.pretrained:
        fits = _has_fitting_statistics(prepared, look, experiment.training)
        for note in () if is_told else look.notes_on_weights() if fits else [look.note_on_statistics()]:
            print(note)
    if prepared.teacher is not None:
        look.at("teacher", prepared.teacher, experiment.teacher.starts_by_chance)
    if experiment.teacher_begins and not experiment.training.allow_weak_teacher:
        look.require_strong_teacher()
    for note in () if is_told else given.notes:
        print(note)
    return experiment, prepared, look


def _has_fitting_statistics(prepared: Prepared, look: start.Look, training: TrainingSpec) -> bool:
    """Whether a student keeps the BatchNorm statistics with which it came.

    If these leave it at chance, and those of training pictures do not, it gets the latter. The moving statistics of a
    Keras model are nearly the initial ones after a training that was short for their momentum.
    """
    plain, batches = prepared.student.plain, training.num_batch_norm_batches
    if not look.is_by_chance("student") or not batches or not (estimator := BatchNormEstimator(plain)).layers:
        return True
    own = plain.get_weights()
    estimator.estimate(images for images, _ in prepared.splits.train(0).take(batches))
    look.at("estimated", plain)
    if not look.has_other_statistics:
        plain.set_weights(own)
    return not look.has_other_statistics


def _trainer(
    experiment: Experiment,
    training: TrainingSpec,
    prepared: Prepared,
    place: Place,
    given: InMemory,
    events: Events,
) -> Trainer:
    """A trainer for all of the experiment's phases, or only for the first ones."""

    def keep_full_precision() -> None:
        """Saves full precision for other runs, which then need not train it again."""
        specs = {"student": experiment.student, "teacher": experiment.teacher}
        with durable.whole_folder(place.folder.full_precision) as part:
            for role, network in prepared.networks:
                if network is not None and role not in experiment.pretrained:
                    networks.of_signals(network, specs[role]).save(part / f"{role}.keras")

    trained = Networks(prepared.student, prepared.teacher, experiment.pretrained, prepared.at_bits)
    after_epoch = given.after_epoch or events.after_epoch
    events = dataclasses.replace(events, after_full_precision=keep_full_precision, after_epoch=after_epoch)
    return Trainer(training, trained, prepared.splits, place, events, prepared.class_weights)


def _calibration_images(experiment: Experiment, splits: data.Splits) -> list[tf.Tensor]:
    batches = itertools.islice(splits.calibration, experiment.quantization.calibration_batches)
    return [images for images, _ in batches]


def _prepare(
    experiment: Experiment, devices: Distribution, given: InMemory, source: data.Source, is_told: bool
) -> Prepared:
    """Networks, checked and proven, and images; prints notes on them, unless they were printed before."""
    shape, num_classes = source.image_shape, len(source.label_names)
    require_class_weights(experiment.training.class_weights, source.label_names)  # before the slow work
    network, plan = networks.checked_student(experiment, shape, num_classes, given.student)
    experiment = experiment.for_student(network.augmenting is not None)
    if given.student is None and given.source is None:
        print("each layer with its bits and bytes: python -m qkd_tf.preflight with the same flags")
    found = {"student": network}
    with devices.scope():
        implementation = quantizer_implementation(experiment.training)
        own = experiment.quantization.bits
        at_bits = {own: quantize_student(network.model, experiment.quantization, implementation, plan)}
        for bits in experiment.training.bits:
            if bits != own:
                spec = experiment.quantization.at(bits)
                at_bits[bits] = quantize_student(network.model, spec, implementation)
        if experiment.teacher:
            found["teacher"] = networks.checked_teacher(experiment, shape, num_classes, given.teacher)
            networks.require_comparable(experiment, network.model, found["teacher"].model)
    pictures = networks.proof_images(experiment.data, source)
    proof = {role: network.prove(pictures) for role, network in found.items()}
    splits = data.pipelines(source, experiment.data, given.augment, network.augmenting)
    as_given = None
    if "student" in experiment.with_weights and likeness.changes_borders(proof["student"]):
        as_given = network.subject.ours if "student" in experiment.pretrained else None
        images = _calibration_images(experiment, splits)
        BatchNormShift(network.subject.ours, at_bits[own].plain).estimate(images)
        for other in at_bits.values():
            other.copy_plain_from(at_bits[own])
            other.copy_weights_from_plain()
    weights = class_weights(experiment.training.class_weights, splits.label_names, splits.num_by_class)
    handoff.require_readable(at_bits[own], splits.fingerprint["num_test"])
    devices.require_same(splits.fingerprint, "their images")
    teacher = found["teacher"].model if experiment.teacher else None
    contents = identity.contents(network.model, teacher, splits.fingerprint, experiment.unnamed_weights)
    if splits.augmentation:
        contents["augmentation"] = splits.augmentation.sha256[:16]
    at_bits = {bits: student.with_models(devices.replicated) for bits, student in at_bits.items()}
    student, teacher = at_bits[own], teacher and devices.replicated(teacher)
    notes = [note for network in found.values() for note in network.notes]
    notes += bytes_by_bits.notes(network.model, plan, experiment.target, experiment.quantization)
    notes += student.notes_on_normalization(experiment.quantization.normalize_weights)
    notes += experiment.notes_on(splits.num_train)
    notes += step_memory.notes(network.model, teacher, experiment.training, experiment.data.batch_size)
    notes = [*experiment.notes, *splits.notes, *notes]
    print(*([] if is_told else notes), student.summary(), sep="\n")
    return Prepared(student, network.model, as_given, teacher, splits, contents, weights, proof, at_bits)


def _calibrate(experiment: Experiment, student: QuantizedStudent, images: list[tf.Tensor]) -> None:
    """Gives a quantized student its first intervals and BatchNorm statistics."""
    if experiment.equalized_spread is not None:
        if equalize_channels(student.plain, experiment.equalized_spread):
            print("channels were equalized before training (--equalize_channels)")
        student.copy_weights_from_plain()
    _equalize_deviations(student)
    calibrate(student, images, experiment.quantization.interval_init, experiment.seed)
    if student.normalized or experiment.training.shifts_calibrated_statistics(experiment.pretrained):
        BatchNormShift(student.plain, student.model).estimate(images)
        print("BatchNorm statistics: full precision's, shifted by what quantization changed (--batch_norm_statistics)")


def _equalize_deviations(student: QuantizedStudent) -> None:
    """Prepares kernels that will be normalized, so that they lose only their mean (`equalize_deviations`)."""
    if student.normalized:
        equalize_deviations(student.plain, student.normalized)
        student.copy_weights_from_plain()


@contextlib.contextmanager
def own_folder(folder: RunFolder, devices: Distribution) -> Iterator[RunFolder]:
    """The chief's run folder itself; for any other worker a copy, which is deleted at the end.

    Raises:
      ExperimentError: the workers see different folders, or were given different flags.
    """
    if devices.is_alone:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        own = folder if devices.is_chief else folder.copy(temporary)
        newest = Checkpoints(own.checkpoints, own.experiment).newest() if own.checkpoints.exists() else None
        start = (own.experiment, newest and (newest[0].name, newest[1]))
        devices.require_same(start, "their flags or in the contents of --run_dir")
        yield own


def train(experiment: Experiment, flag_lines: list[str], given: InMemory = InMemory()) -> None:
    """`run` in the experiment's own folder, with signal handling, on its devices; commands and `qkd_tf.fit` call it.

    Args:
      flag_lines: the flags that describe the experiment, as `flags.flag_lines` returns them.

    Raises:
      ExperimentError, FolderInUseError, OSError, Stopped: as `run`.
    """
    require_networks(experiment)
    check_device(experiment.training.mixed_precision)
    experiment.require_measurable()
    folder = RunFolder(experiment.run_dir, flag_lines)
    folder.require_free()
    devices = strategies.start(experiment.training.strategy)
    process = functools.partial(borrowed_process.borrowed, experiment.seed, experiment.training.deterministic)
    with StopSignals() as stop, process(), data.reading(experiment.data), devices.naming_lost_workers():
        with own_folder(folder, devices) as own:
            at_bits = found_bits.settled(experiment, own.bits)
            if is_open := at_bits is None:
                with process():  # seeded by itself: what it draws changes nothing of the training
                    find_bits(experiment, own, stop, devices, given)
                at_bits = found_bits.settled(experiment, own.bits)
            run(at_bits, own, stop, devices, given, is_open)
