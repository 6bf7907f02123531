"""Networks by the name that a user gives: from the zoo, from a builder, saved by Keras, or in memory."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tf_keras
from tf_keras import layers

from qkd_tf import data
from qkd_tf.console.counting import in_role
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import DataSpec, Experiment, NetworkSpec, QuantizationSpec, TargetSpec, require
from qkd_tf.models import likeness, own, weights, zoo
from qkd_tf.models.augmenting import Augmenting, fits
from qkd_tf.models.classifier import num_features
from qkd_tf.models.copier import leaves, valid_name
from qkd_tf.models.layers import Logarithm, scale_and_offset
from qkd_tf.models.likeness import Subject
from qkd_tf.models.normalization import Affine, normalizes
from qkd_tf.models.reading import Reading
from qkd_tf.process import random_state
from qkd_tf.quantization import layer_table
from qkd_tf.quantization.plan import QuantizationPlan, make_plan
from qkd_tf.quantization.refusals import UnsupportedLayers
from qkd_tf.quantization.standard_form import standard_form
from qkd_tf.quantization.stored_bytes import stored_files
from qkd_tf.quantization.student_reading import notes_on_unused

NUM_PROOF_IMAGES = 32
NUM_NOISE = 8  # pictures of noise on which probabilities are told from logits
SUM_TOLERANCE = 0.02  # of probabilities in half precision


@dataclasses.dataclass(frozen=True)
class Network:
    """A float network that is ready to train.

    Attributes:
      model: from pixels [N, H, W, C], 0..255, to logits [N, K].
      notes: what a user should know, one per line.
      subject: the user's network, to which this one is compared; None for a zoo teacher, which trains as it is.
      augmenting: a student's own augmentation layers; None if it has none, and for a teacher.
    """

    model: tf_keras.Model
    notes: list[str]
    subject: Subject | None = None
    augmenting: Augmenting | None = None

    def __iter__(self) -> Iterator:
        """Unpacks as (model, notes)."""
        return iter((self.model, self.notes))

    def prove(self, images: np.ndarray) -> dict | None:
        """`likeness.prove`; its finding is added to the notes.

        Raises:
          ExperimentError: the network does not compute what the user's network does.
        """
        if self.subject is None:
            return None
        row = likeness.prove(self.subject, images)
        self.notes.extend([likeness.line(self.subject, row), *likeness.notes_on_borders(self.subject, row)])
        return row


def build_student(
    network: NetworkSpec, input_shape: tuple[int, int, int], num_classes: int, given: tf_keras.Model | None = None
) -> Network:
    """A float network in standard form, with its first weights.

    Args:
      given: the model itself, if Python passes it; it is left unchanged.

    Raises:
      ExperimentError: weights do not fit, or a layer has no integer form in a .tflite.
    """
    model, notes = _build(network, input_shape, num_classes, given, "student")
    trained = network.weights_normalization or (None if network.has_weights else network.normalization)
    signals = network.reads_signals and network.is_own
    form = standard_form(model, input_shape, trained, network.normalization, not network.is_own, num_classes, signals)
    notes += form.notes
    _require_readable(model, form.feed, "student")
    if network.is_own and form.feed is None and network.weights_normalization:
        notes.append(f"note: {model.name} normalises its pixels itself; --student_weights_mean and _std are not used")
    if network.is_builder and form.feed is not None and not network.weights_normalization:
        notes.append(
            f"note: {model.name} does not normalise its pixels itself, so it gets them normalised by {form.feed}; if "
            "its weights are trained, give --student_weights_mean and --student_weights_std of that training"
        )
    notes += _regularizers(model, "student") + _frozen(model, "student")
    twin = form.twin() if form.has_borders else form.model
    feed = form.feed or Affine.identity(input_shape[-1])
    found = [(layer, feed.then(reads.scale, reads.offset)) for layer, reads in form.reading.augmenting]
    steps = [step for step in found if fits(*step)]
    notes += notes_on_unused([layer for layer, reads in found if not fits(layer, reads)])
    subject = Subject("student", model, form.feed, form.reading, twin, form.model)
    if form.reading.head == "logits" and form.reading.squashed_by:
        notes += _notes_on_probabilities(subject, _outputs_on_noise(subject))
    return Network(form.model, notes, subject, Augmenting(steps) if steps else None)


def build_teacher(
    network: NetworkSpec,
    input_shape: tuple[int, int, int],
    num_classes: int,
    given: tf_keras.Model | None = None,
) -> Network:
    """A float network of any layers; otherwise as `build_student`."""
    model, notes = _build(network, input_shape, num_classes, given, "teacher")
    if not network.is_own:
        return Network(model, notes)
    reading = Reading(model, input_shape, num_classes)
    feed, normalization = None, network.weights_normalization or network.normalization
    if network.reads_signals or not normalizes(reading.model):
        require(
            network.weights_normalization is not None or not network.has_weights,
            f"{in_role('teacher', model.name)} does not normalise its pixels itself; give the normalization that its "
            "weights were trained with by --teacher_pixel_mean and --teacher_pixel_std, such as 0 and 1 for raw pixels",
        )
        feed = Affine.of(normalization, input_shape[-1])
        _require_readable(model, feed, "teacher")
        if network.weights_normalization is None:
            notes.append(
                f"note: {in_role('teacher', model.name)} does not normalise its pixels itself, so it gets them "
                f"normalised by {feed}"
            )
    elif network.weights_normalization is not None:
        notes.append(f"note: {model.name} normalises its pixels itself; --teacher_pixel_mean and _std are not used")
    pixels = x = tf_keras.Input(input_shape, name="pixels")
    if feed is not None:
        x = layers.Rescaling(*scale_and_offset(normalization), name="pixel_normalization")(x)
    logits = reading.model(x)
    subject = Subject("teacher", model, feed, reading, reading.model, reading.model)
    if reading.head in ("logits", "one logit"):
        outputs = _outputs_on_noise(subject)
        if outputs.min() >= 0 and np.allclose(outputs.sum(-1), 1.0, atol=SUM_TOLERANCE):  # as no logits are
            notes.append(
                f"note: {in_role('teacher', model.name)} returns probabilities; their logarithms are used as logits"
            )
            logits, reading.head = Logarithm(name="logits_of_probabilities")(logits), "softmax"
        else:
            notes += _notes_on_probabilities(subject, outputs)
    teacher = tf_keras.Model(pixels, logits, name=valid_name(model.name))
    notes += reading.notes + _regularizers(model, "teacher") + _frozen(model, "teacher")
    return Network(teacher, notes, dataclasses.replace(subject, ours=teacher, trains=teacher))


def checked_student(
    experiment: Experiment,
    input_shape: tuple[int, int, int],
    num_classes: int,
    given: tf_keras.Model | None = None,
    every_layer: bool = False,
) -> tuple[Network, QuantizationPlan]:
    """An experiment's float student and its quantization plan, which is printed.

    Args:
      given: as in `build_student`.
      every_layer: print the table of layers, too; for a refused student it is always printed.

    Raises:
      ExperimentError: a layer cannot become an integer operator; the student exceeds a limit of the target; the network
        or its weights do not fit; or nothing in it may be trained.
    """
    try:
        network = build_student(experiment.student, input_shape, num_classes, given)
        plan = checked_plan(network.model, experiment.quantization, experiment.target, every_layer)
    except UnsupportedLayers as error:
        print(layer_table.text(layer_table.refused_rows(error.model, error.refusals)))
        raise
    model = network.model
    depthwise = any(isinstance(layer, layers.DepthwiseConv2D) for layer in leaves(model))
    if depthwise and experiment.training.mixed_precision == "bfloat16":
        network.notes.append(
            f"note: {model.name} has depthwise convolutions, on which --mixed_precision=bfloat16 is slower than float32"
        )
    _require_compilable(experiment, model)
    if experiment.continues_in_float:
        network.notes.append(f"note: full_precision trains {model.name} further, from the weights that it came with")
    trains = "student" not in experiment.pretrained and "full_precision" in experiment.training.phase_names
    require(
        not trains or bool(model.trainable_variables),
        f"{in_role('student', model.name)} is frozen (trainable = False), but full_precision would train it; set "
        "trainable = True",
    )
    return network, plan


def checked_plan(
    model: tf_keras.Model, spec: QuantizationSpec, target: TargetSpec, every_layer: bool = False
) -> QuantizationPlan:
    """The plan of a student in standard form. Prints its totals, and with `every_layer` its table.

    Raises:
      ExperimentError: as `make_plan`, or the student exceeds a limit of the target.
    """
    plan = make_plan(model, spec)
    table, flash = layer_table.rows(model, plan), target.max_flash_bytes
    if every_layer:
        print(layer_table.text(table))
    files = stored_files(model, plan, target, spec)
    print(layer_table.totals(table, model, target, files[0]))
    fewest, most = min(file.fewest_bytes for file in files), min(file.file_bytes for file in files)
    if spec.is_open:  # these widths are not yet those of the file
        slower = ", and runs slower" * ("int4_all" in TARGETS[target.target].slower)
        packs = f"; --weight_storage=int4_all packs more{slower}" if target.packs_more else ""
        require(
            fewest <= flash,
            f"--max_flash_bytes={flash} is too little: --bits=auto needs at least {fewest:,} bytes as kernels are "
            f"stored for {target.target} ({target.storage}); allow as many, or use a smaller student{packs}",
        )
        target = dataclasses.replace(target, max_flash_bytes=0)
    elif 0 < flash < most:
        print(f"note: the file may take up to {most:,} bytes, above --max_flash_bytes={flash:,}; the export checks it")
    found = layer_table.limits(table, model, target)
    require(not found, "; ".join(found))
    for note in layer_table.notes_on_unpacking(table, model, target):
        print(note)
    return plan


def checked_teacher(
    experiment: Experiment, input_shape: tuple[int, int, int], num_classes: int, given: tf_keras.Model | None = None
) -> Network:
    """An experiment's teacher, as `checked_student`."""
    network = build_teacher(experiment.teacher, input_shape, num_classes, given)
    _require_compilable(experiment, network.model)
    trains = {"co_studying"} | ({"full_precision"} if not experiment.teacher.has_weights else set())
    phases = [name for name in experiment.training.phase_names if name in trains]
    require(
        not phases or bool(network.model.trainable_variables),
        f"{in_role('teacher', network.model.name)} is frozen (trainable = False), but {' and '.join(phases)} would "
        "train it; set teacher.trainable = True, or leave that phase out of --phases",
    )
    return network


def require_comparable(experiment: Experiment, student: tf_keras.Model, teacher: tf_keras.Model) -> None:
    """Raises ExperimentError where features of two sizes would be compared."""
    if not experiment.training.feature_distillation_weight:
        return
    of_student, of_teacher = num_features(student), num_features(teacher)
    require(
        of_student == of_teacher,
        f"--feature_distillation_weight compares the inputs of the last layers, which have {of_student} numbers in "
        f"{in_role('student', student.name)} and {of_teacher} in {in_role('teacher', teacher.name)}; "
        "leave it out, or use a teacher whose last layer reads as many",
    )


def _require_compilable(experiment: Experiment, model: tf_keras.Model) -> None:
    """Raises ExperimentError for max-pooling under XLA, which has no deterministic gradient for it."""
    training = experiment.training
    pools = [layer.name for layer in leaves(model) if isinstance(layer, layers.MaxPooling2D)]
    require(
        not (pools and training.jit_compile and random_state.is_deterministic(training.deterministic)),
        f"layer {pools[0] if pools else ''} of {model.name} is a MaxPooling2D, which XLA cannot train "
        "deterministically; leave --jit_compile out, or give --nodeterministic",
    )


def on_source(experiment: Experiment, source: data.Source, num_replicas: int = 1) -> Experiment:
    """The experiment with networks that read what the source's 8 bits mean, and batches and rates for its images.

    Args:
      num_replicas: those that share each batch.

    Raises:
      ExperimentError: a normalisation of pixels was given for signals.
    """
    experiment = experiment.on_images(source.train.num_examples, num_replicas)
    params = source.input_params
    return experiment if params is None else experiment.on_signals(params.scale, -params.grid.qmin)


def of_signals(network: tf_keras.Model, spec: NetworkSpec) -> tf_keras.Model:
    """Makes a network that reads 8-bit steps read the real numbers instead, so that other runs can load it.

    A network for pictures is returned unchanged.
    """
    if not spec.reads_signals:
        return network
    (mean,), (std,) = spec.normalization.mean, spec.normalization.std
    signals = tf_keras.Input(network.input_shape[1:], name="signals")
    steps = layers.Rescaling(std, mean, name="input_steps")(signals)
    return tf_keras.Model(signals, network(steps), name=network.name)


def proof_images(spec: DataSpec, source: data.Source) -> np.ndarray:
    """Training pictures [N, H, W, C] uint8 on which networks are compared with the user's."""
    return data.sample(source, spec, NUM_PROOF_IMAGES)[0]


def _require_readable(model: tf_keras.Model, feed: Affine | None, role: str) -> None:
    """Raises ExperimentError for normalised pixels that the model would read as whole numbers."""
    dtype = model.inputs[0].dtype
    require(
        feed is None or dtype.is_floating or feed.is_as(Affine.identity(len(feed.scale))),
        f"{in_role(role, model.name)} has an Input of {dtype.name}, which cannot hold pixels normalised by {feed}; "
        "make it float32, or give mean 0 and deviation 1 if it reads raw pixels",
    )


def _outputs_on_noise(subject: Subject) -> np.ndarray:
    """Outputs of the given model on noise, [NUM_NOISE, K]."""
    shape = (NUM_NOISE, *subject.ours.input_shape[1:])
    return subject.outputs(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))


def _notes_on_probabilities(subject: Subject, outputs: np.ndarray) -> list[str]:
    """A note on a network whose outputs look like probabilities that no softmax or sigmoid made."""
    if outputs.min() < 0 or outputs.max() > 1:
        return []
    return [
        f"note: all outputs of {subject} are between 0 and 1, and are used as logits, which need a wider range; if "
        "they are probabilities, end the network in the logits from which they are computed"
    ]


def _regularizers(model: tf_keras.Model, role: str) -> list[str]:
    """A note on regularizers, which are not used."""
    kinds = ("kernel_regularizer", "bias_regularizer", "activity_regularizer", "depthwise_regularizer",
             "pointwise_regularizer", "beta_regularizer", "gamma_regularizer", "alpha_regularizer")  # fmt: skip
    found = [layer.name for layer in leaves(model) if any(getattr(layer, kind, None) is not None for kind in kinds)]
    if not found:
        return []
    more = f" and {len(found) - 3} more layers" if len(found) > 3 else ""
    return [
        f"note: the {role}'s own regularizers, in {', '.join(found[:3])}{more}, are not used; "
        "all kernels get --weight_decay instead"
    ]


def _frozen(model: tf_keras.Model, role: str) -> list[str]:
    """A note on frozen layers."""
    with_weights = [layer for layer in leaves(model) if layer.weights and not isinstance(layer, layers.Normalization)]
    num_frozen = sum(not layer.trainable for layer in with_weights)
    if not num_frozen:
        return []
    learned = "; their intervals are learned" if role == "student" else ""
    verb = "is" if num_frozen == 1 else "are"
    return [
        f"note: {num_frozen} of {len(with_weights)} layers of {in_role(role, model.name)} {verb} frozen, trainable = "
        f"False: weights and BatchNorm statistics stay as they are{learned}; set trainable = True to train them too"
    ]


def _build(network: NetworkSpec, input_shape, num_classes: int, given, role: str) -> tuple[tf_keras.Model, list[str]]:
    if network.is_own:
        return own.build(network, input_shape, num_classes, given, role)
    if network.weights_normalization:  # the reading takes a student from this one to its own
        network = dataclasses.replace(network, normalization=network.weights_normalization)
    require(
        len(input_shape) == 3,
        f"{network.name} reads pictures or maps of height, width and channels, the data set gives {input_shape}; give "
        "a network of your own, package.module:builder",
    )
    model = zoo.build(network, input_shape, num_classes)
    return model, weights.load(model, network) if network.weights else []
