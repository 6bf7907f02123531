"""Trains a low-bit student by QKD: python -m qkd_tf.train --flagfile=configs/NAME.flags."""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import contextlib
import dataclasses
import itertools
import sys
import tempfile
from collections.abc import Iterator

import tensorflow as tf
import tf_keras
from absl import app

from qkd_tf import data, flags, networks
from qkd_tf.console import command_line
from qkd_tf.distillation import strategies
from qkd_tf.distillation.distribution import ONE_DEVICE, Distribution
from qkd_tf.distillation.listeners import Listener
from qkd_tf.distillation.mixed_precision import check_device
from qkd_tf.distillation.phase_setup import Networks
from qkd_tf.distillation.trainer import Events, Place, Trainer
from qkd_tf.experiment import Experiment, ExperimentError, class_weights
from qkd_tf.models import identity
from qkd_tf.outcome import diagnosis, handoff, results, start
from qkd_tf.process import borrowed_process
from qkd_tf.process.stop_signals import Stopped, StopSignals
from qkd_tf.quantization.batch_norm import BatchNormShift
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.equalization import equalize_channels
from qkd_tf.quantization.scheme import QuantizedStudent, quantize_student, quantizer_implementation
from qkd_tf.storage import durable
from qkd_tf.storage.checkpoints import Checkpoints
from qkd_tf.storage.folder_lock import FolderInUseError, locked
from qkd_tf.storage.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class InMemory:
    """What Python hands over as it is; what is None is found by the name that the experiment has for it."""

    source: data.Source | None = None
    augment: data.Function | None = None
    after_epoch: Listener | None = None
    student: tf_keras.Model | None = None
    teacher: tf_keras.Model | None = None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What is going to be trained, and on what.

    Attributes:
      contents: what the experiment is made of, as digests (`identity`).
      class_weights: factor of each class's examples; None where all are 1.
      proof: what `Network.prove` returned, by role.
      at_bits: the student by widths, as of `Networks`.
    """

    student: QuantizedStudent
    teacher: tf_keras.Model | None
    splits: data.Splits
    contents: dict[str, str]
    class_weights: list[float] | None
    proof: dict[str, dict | None]
    at_bits: dict[tuple[int, int], QuantizedStudent]


def run(
    experiment: Experiment,
    folder: RunFolder,
    stop: StopSignals,
    devices: Distribution = ONE_DEVICE,
    given: InMemory = InMemory(),
) -> None:
    """One experiment from images to handoff, in a process that is seeded.

    Args:
      folder: of several workers each has one of its own; see `own_folder`.
      devices: that train.

    Raises:
      ExperimentError: data, networks or weights that do not fit; a loss that diverged.
      OSError: the run folder is in use, or cannot be written.
      Stopped: a signal came.
      tf.errors.OpError: another worker was lost.
    """
    source = given.source or data.open_source(experiment.data)
    experiment = networks.on_source(experiment, source)
    prepared = _prepare(experiment, devices, given, source)
    student, teacher, splits = prepared.student, prepared.teacher, prepared.splits
    calibration = itertools.islice(splits.calibration, experiment.quantization.calibration_batches)
    images = [batch for batch, _ in calibration]
    look = start.Look(splits, folder.start)
    look.at("student", student.plain, experiment.student.starts_by_chance)
    if teacher is not None:
        look.at("teacher", teacher, experiment.teacher.starts_by_chance)
    if experiment.teacher_begins and not experiment.training.allow_weak_teacher:
        look.require_strong_teacher()

    def init_intervals() -> None:
        _calibrate(experiment, student, images)
        look.at("quantized", student.model)
        look.keep()

    def init_intervals_of(at_other_bits: QuantizedStudent) -> None:
        calibrate(at_other_bits, images, experiment.quantization.interval_init, experiment.seed)

    def keep_full_precision() -> None:
        """For other runs, which need not train it again."""
        with durable.whole_folder(folder.full_precision) as part:
            found = (("student", student.plain, experiment.student), ("teacher", teacher, experiment.teacher))
            for role, network, spec in found:
                if network is not None and role not in experiment.pretrained:
                    networks.of_signals(network, spec).save(part / f"{role}.keras")

    with locked(folder.path):
        folder.claim(prepared.contents, identity.WORDS)
        look.keep()
        trained = Networks(student, teacher, experiment.pretrained, prepared.at_bits)
        after_epoch = given.after_epoch or Events.after_epoch
        events = Events(init_intervals, keep_full_precision, after_epoch, init_intervals_of)
        place = Place(folder, stop, devices)
        phases = Trainer(experiment.training, trained, splits, place, events, prepared.class_weights).run()
        for note in look.notes_on_end(phases[-1]["best_validation_top1"]) if phases else ():
            print(note)
        if devices.is_chief:
            reference = diagnosis.Reference(student, experiment.full_precision_origin)
            handed_over = handoff.write(student, splits, folder, experiment.target.judge, reference.look)
            print(f"in integers, as the file computes them: test: {handed_over.accuracy}")
            facts = diagnosis.write(handed_over, reference, folder)
            results.write(folder, experiment, splits, handed_over, phases, facts, prepared.proof, look.found)
    devices.wait()


def _prepare(experiment: Experiment, devices: Distribution, given: InMemory, source: data.Source) -> Prepared:
    """Networks, checked and proven, and images; what is to be known of them is printed."""
    shape, num_classes = source.image_shape, len(source.label_names)
    network, plan = networks.checked_student(experiment, shape, num_classes, given.student)
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
    pictures = networks.proof_images(experiment.data, source)
    proof = {role: network.prove(pictures) for role, network in found.items()}
    splits = data.pipelines(source, experiment.data, given.augment)
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
    notes += experiment.notes_on(splits.num_train)
    print(*experiment.notes, *experiment.data.notes, *splits.notes, *notes, student.summary(), sep="\n")
    return Prepared(student, teacher, splits, contents, weights, proof, at_bits)


def _calibrate(experiment: Experiment, student: QuantizedStudent, images: list[tf.Tensor]) -> None:
    """Gives a float student's twin its first intervals and statistics."""
    if experiment.equalized_spread is not None:
        if equalize_channels(student.plain, experiment.equalized_spread):
            print("channels were equalized before training (--equalize_channels)")
        student.copy_weights_from_plain()
    calibrate(student, images, experiment.quantization.interval_init, experiment.seed)
    if experiment.training.shifts_calibrated_statistics(experiment.pretrained):
        BatchNormShift(student).estimate(images)
        print("BatchNorm statistics: full precision's, shifted by what quantization changed (--batch_norm_statistics)")


@contextlib.contextmanager
def own_folder(folder: RunFolder, devices: Distribution) -> Iterator[RunFolder]:
    """Of the chief the run folder itself; of any other worker a copy, which is thrown away in the end.

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
        devices.require_same(start, "their flags or in what is in --run_dir")
        yield own


def train(experiment: Experiment, flag_lines: list[str], given: InMemory = InMemory()) -> None:
    """`run` in the experiment's own folder, under signals and on its devices: what commands and `qkd_tf.fit` call.

    Args:
      flag_lines: the flags that describe the experiment, as `flags.flag_lines` has them.

    Raises:
      ExperimentError, FolderInUseError, OSError, Stopped: as `run`.
    """
    networks.check_name(experiment.student, "--student")
    if experiment.teacher:
        networks.check_name(experiment.teacher, "--teacher")
    check_device(experiment.training.mixed_precision)
    folder = RunFolder(experiment.run_dir, flag_lines)
    devices = strategies.start(experiment.training.strategy)
    devices.require_divides(experiment.data.batch_size)
    process = borrowed_process.borrowed(experiment.seed, experiment.training.deterministic)
    with StopSignals() as stop, process, data.reading(experiment.data), devices.naming_lost_workers():
        with own_folder(folder, devices) as own:
            run(experiment, own, stop, devices, given)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        experiment = flags.experiment_from_flags()
        for note in flags.notes():
            print(note)
        train(experiment, flags.flag_lines())
    except (ExperimentError, FolderInUseError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        reason = " ".join(str(error).split())
        sys.exit(f"error: {reason}; when that is mended, the same command goes on from the last checkpoint")
    except Stopped as stopped:
        print(f"stopped by {stopped}; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(stopped.exit_code)
    print(f"handoff written; next: python -m tflite_export --run_dir={experiment.run_dir}")


if __name__ == "__main__":
    command_line.run(main, flags.FLAGS)
