"""The command line: the only flags of the package, and the Experiment they make."""

import copy
import difflib
from collections.abc import Mapping

from absl import flags

from qkd_tf import experiment as ex
from qkd_tf.console.command_line import CommandFlags
from qkd_tf.contract.targets import TARGETS

FLAGS = CommandFlags()

# Data
FLAGS.DEFINE_string("dataset", "cifar10", "Images: 'digits' (embedded), 'folder:/path', or a TFDS classification set.")
FLAGS.DEFINE_string("data_dir", "", "Folder in which TFDS has prepared the set; empty: the default folder of TFDS.")
FLAGS.DEFINE_string("test_split", "", "Split for the final look; empty: test, or validation where TFDS has no labels.")
FLAGS.DEFINE_integer("image_size", 0, "Pixels of a side; 0 keeps the size of the set (all images must then agree).")
FLAGS.DEFINE_enum(
    "resize",
    "crop",
    ex.RESIZES,
    "How images become of --image_size: the centre of the shorter side, or both sides squashed, as Keras does.",
)
FLAGS.DEFINE_integer("image_channels", 0, "Channels that networks read: 1 is grey, 3 RGB, 0 what the set has.")
FLAGS.DEFINE_float("validation_fraction", 0.1, "Share of the training split, in (0, 1), that chooses the best epoch.")
FLAGS.DEFINE_integer("crop_padding", 4, "Black pixels around a training image before the random crop (QKD, CIFAR: 4).")
FLAGS.DEFINE_bool("horizontal_flip", True, "Mirror half of the training images.")
FLAGS.DEFINE_integer("batch_size", 128, "Images a training step, of all devices together (QKD: 128).")
FLAGS.DEFINE_bool("skip_broken_images", False, "Leave out files of a folder that cannot be decoded; default: refuse.")
FLAGS.DEFINE_integer("max_steps", 0, "Training steps after which each epoch ends, for a trial; 0: whole epochs.")
FLAGS.DEFINE_integer("max_eval_images", 0, "First images of validation and of test that are read, for a trial; 0: all.")

# Networks
FLAGS.DEFINE_string(
    "student", "resnet20", "Network to quantize: a name, package.module:builder, or a .keras, .h5 or SavedModel."
)
FLAGS.DEFINE_string("teacher", "", "Network to learn from, given as --student is; empty: none.")
FLAGS.DEFINE_string("student_weights", "", "First weights of the student: .h5, .keras, .weights.h5 or .npz.")
FLAGS.DEFINE_string("teacher_weights", "", "First weights of the teacher: .h5, .keras, .weights.h5 or .npz.")
FLAGS.DEFINE_bool(
    "trust_model_code",
    False,
    "Run the code that saved models bring (Lambda layers, classes that are not of tf_keras); default: refuse them.",
)
FLAGS.DEFINE_list(
    "student_pixel_mean",
    [],
    "Pixel, 0..254 and whole, that the student reads as 0.0; empty: --student_weights_mean where it is one, else 128.",
)
FLAGS.DEFINE_list(
    "student_pixel_std",
    [],
    "Pixels a unit of the student's input, one number; empty: --student_weights_std with that mean, else 64.",
)
FLAGS.DEFINE_list("student_weights_mean", [], "Mean, in pixels 0..255, that --student_weights were trained under.")
FLAGS.DEFINE_list("student_weights_std", [], "Deviation, in pixels, that --student_weights were trained under.")
FLAGS.DEFINE_list(
    "teacher_pixel_mean",
    [],
    "Mean, in pixels, one number or one a channel, that the teacher reads as 0.0; empty: as it normalises them itself, "
    "else 128.",
)
FLAGS.DEFINE_list(
    "teacher_pixel_std", [], "Pixels a unit of the teacher's input; empty: as it normalises them itself, else 64."
)
FLAGS.DEFINE_bool(
    "allow_weak_teacher",
    False,
    "Let a teacher teach that is near chance or far below the student on validation images; default: stop.",
)

# Quantization
FLAGS.DEFINE_integer("weight_bits", 4, "Bit width of kernels, 2..8, but for the first and last layer.")
FLAGS.DEFINE_integer("activation_bits", 4, "Bit width of the inputs of layers, 2..8, but for the first and last.")
FLAGS.DEFINE_integer("first_layer_bits", 8, "Bit width, weights and input, of the first layer (QKD: 8).")
FLAGS.DEFINE_integer("last_layer_bits", 8, "Bit width, weights and input, of the last layer (QKD: 8).")
FLAGS.DEFINE_integer("residual_bits", 8, "Bit width of tensors that an addition, concatenation or average reads.")
FLAGS.DEFINE_multi_string(
    "bits_rule",
    [],
    "Bit widths of the layers whose whole name fits a regular expression, 'regex=w4a8', w or a alone too; may be "
    "repeated, later rules go before earlier ones, and all before the widths above.",
)
FLAGS.DEFINE_enum("interval_init", "mse", ex.INTERVAL_INITS, "First interval: min-max, LSQ's mean, or least MSE.")
FLAGS.DEFINE_enum(
    "equalize_channels",
    "auto",
    ex.EQUALIZATIONS,
    "Scale kernels' channels to one size before intervals are chosen, through BatchNorm. auto: without phases, and "
    f"where in a kernel the largest channel is more than {ex.UNEVEN_CHANNELS:g} times the median one.",
)
FLAGS.DEFINE_enum(
    "interval_gradient_scale", "lsq", ex.INTERVAL_GRADIENT_SCALES, "Factor of dL/dI: 1, or LSQ's 1/sqrt(N*qmax)."
)
FLAGS.DEFINE_float(
    "interval_gradient_share",
    0.125,
    "Share of a batch's examples, in (0, 1], that gives dL/dI of activations: of residual tensors and of what is "
    "requantized from them, with --mixed_precision of all; 1 is exact, less is faster.",
)
FLAGS.DEFINE_bool(
    "narrow_range",
    True,
    "Kernels of b bits hold 2^b - 1 integers about 0 (QKD: 2 bits are ternary); else one more, -2^(b-1), below 8 bits "
    "(LSQ), and none is stored as INT4.",
)
FLAGS.DEFINE_bool(
    "mask_weight_gradient", True, "Zero a weight's gradient outside its range (LSQ); QKD's authors don't."
)
FLAGS.DEFINE_float(
    "ewgs_scale",
    0.0,
    "Scale of a gradient by its value's rounding error, in [0, 1); 0: plain straight-through (EWGS: 1e-3).",
)
FLAGS.DEFINE_integer("calibration_batches", 8, "Training batches that choose the first activation intervals.")

# Training
FLAGS.DEFINE_list(
    "phases",
    ["self_studying", "co_studying", "tutoring"],
    "Phases in order: " + ", ".join(ex.PHASES) + "; none: calibration alone.",
)
FLAGS.DEFINE_list("epochs", ["30", "100", "70"], "Epochs of each phase (QKD on CIFAR: 30, 100, 70).")
FLAGS.DEFINE_list(
    "learning_rates",
    ["0.01"],
    "Learning rate of each phase, or one for all, at the first step of its cosine (QKD: 0.01).",
)
FLAGS.DEFINE_enum(
    "keep_epoch",
    "best",
    ex.KEPT_EPOCHS,
    "Student that goes on from a phase: the best epoch's on validation, or the last one's, where a small validation "
    "split would choose by chance among epochs of a learning rate that falls to 0.",
)
FLAGS.DEFINE_bool(
    "one_cosine",
    True,
    "Learning rates fall by one cosine over all quantized phases, each phase's from its own first rate; else each "
    "phase has a cosine of its own.",
)
FLAGS.DEFINE_enum("optimizer", "sgd", ex.OPTIMIZERS, "Optimizer of both networks (QKD: sgd).")
FLAGS.DEFINE_float("momentum", 0.9, "Momentum of sgd (QKD: 0.9).")
FLAGS.DEFINE_float("weight_decay", 1e-4, "L2 factor on kernels, never on intervals (QKD: 1e-4).")
FLAGS.DEFINE_float(
    "weight_interval_lr_ratio", 1.0, "Learning rate of weight intervals, as a share (QKD, unscaled: 0.01)."
)
FLAGS.DEFINE_float("activation_interval_lr_ratio", 1.0, "Learning rate of activation intervals, as a share (QKD: 1).")
FLAGS.DEFINE_float(
    "interval_max_change",
    0.02,
    "Largest change of an interval in one step, in [0, 1), as a share of it; 0: no bound (QKD).",
)
FLAGS.DEFINE_float("teacher_lr_ratio", 1.0, "Learning rate of the teacher in co_studying, as a share (QKD: 1).")
FLAGS.DEFINE_float("temperature", 2.0, "T of the softened distributions (QKD: 2).")
FLAGS.DEFINE_float("distillation_weight", 1.0, "Factor of T^2*KL beside the cross-entropy (QKD: 1).")

# Low-bit networks
FLAGS.DEFINE_integer(
    "batch_norm_batches",
    -1,
    "Training batches, at most an epoch's, that re-estimate BatchNorm statistics before a quantized student's "
    "validation; 0: never; -1: 20, and 0 without phases.",
)
FLAGS.DEFINE_enum(
    "batch_norm_statistics",
    "auto",
    ex.BATCH_NORM_STATISTICS,
    "What those batches tell: the statistics themselves, or how far they are from full precision's, which is added to "
    "its own. The shift is also taken behind calibration. auto: the shift where the student came with weights.",
)
FLAGS.DEFINE_float(
    "dampening",
    0.0,
    "Factor of the loss that draws weights to their integers, as it is at the last step; rises from 0 by a cosine "
    "(Nagel et al. 2022: 0.1).",
)
FLAGS.DEFINE_float(
    "freeze_threshold_start",
    0.0,
    "Changes of direction a step, in [0, 1], above which a weight is frozen, at the first quantized step; 0: never "
    "(Nagel et al. 2022: 0.1).",
)
FLAGS.DEFINE_float(
    "freeze_threshold_end",
    0.01,
    "The same at the last quantized step; falls by a cosine (Nagel et al. 2022: 0.01).",
)

# Accelerators
FLAGS.DEFINE_enum(
    "mixed_precision",
    "float32",
    ex.PRECISIONS,
    "Precision of convolutions in training: bfloat16 (CPUs that have it; slower on depthwise ones), "
    "float16 (GPUs, with loss scaling).",
)
FLAGS.DEFINE_bool("jit_compile", False, "Compile the training step with XLA: for accelerators; slower on CPUs.")
FLAGS.DEFINE_integer("steps_per_execution", 1, "Training steps that run before losses are looked at; spares overhead.")
FLAGS.DEFINE_enum(
    "strategy",
    "default",
    ex.STRATEGIES,
    "Devices that train: one; all GPUs of this machine; all machines of TF_CONFIG; a TPU. They share each batch.",
)

# Target
FLAGS.DEFINE_enum("target", "phone", list(TARGETS), "What the file is for; the pre-flight looks at its limits.")
FLAGS.DEFINE_integer("max_flash_bytes", 0, "Room for weights on the target, in bytes; 0: no limit.")
FLAGS.DEFINE_integer("max_ram_bytes", 0, "Room for activations on the target, in bytes; 0: no limit.")

# Run
FLAGS.DEFINE_string("run_dir", None, "Folder of the run, for instance runs/my_run; it goes on where it stopped.")
FLAGS.DEFINE_integer("seed", 0, "Seed of weights, shuffling and augmentation.")
FLAGS.DEFINE_bool(
    "deterministic",
    None,
    "Equal flags give equal bits, also of a run that was killed; default: on a CPU, since it costs.",
)
FLAGS.DEFINE_integer(
    "checkpoint_every_steps", 0, "Steps after which an epoch is saved, again and again; 0: at the ends of epochs alone."
)


def experiment_from_flags(values: flags.FlagValues = FLAGS, trains: bool = True) -> ex.Experiment:
    """The experiment that parsed flags, those of the command line or of `flags_of`, describe.

    Args:
      trains: False for a look at its networks, which needs neither a folder nor, for phases that have one, a teacher.

    Raises:
      ExperimentError: a value out of range, or flags that do not go together.
    """
    run_dir = values.run_dir if trains or values.run_dir is not None else "none"
    ex.require(run_dir is not None, "--run_dir is missing; give a folder for the run, such as runs/my_run")
    epochs = values.epochs if values.phases else []
    rates = (
        values.learning_rates * (len(values.phases) if len(values.learning_rates) == 1 else 1) if values.phases else []
    )
    ex.require(
        len(values.phases) == len(epochs) == len(rates),
        f"--phases has {len(values.phases)} entries, --epochs {len(values.epochs)} and --learning_rates "
        f"{len(values.learning_rates)}; give one of each a phase (or one learning rate for all)",
    )
    phases = tuple(
        ex.PhaseSpec(name, *_numbers(int, "epochs", [number]), *_numbers(float, "learning_rates", [rate]))
        for name, number, rate in zip(values.phases, epochs, rates, strict=True)
    )
    weights_pixels = None
    if values.student_weights_mean or values.student_weights_std:
        weights_pixels = _normalization(values, "student_weights")
    student_pixels = weights_pixels
    if values.student_pixel_mean or values.student_pixel_std or not (weights_pixels and weights_pixels.fits_input):
        student_pixels = _normalization(values, "student_pixel", ("128", "64"))
    ex.require(values.teacher or not values.teacher_weights, "--teacher_weights without --teacher; name the teacher")
    student = ex.NetworkSpec(
        values.student, student_pixels, values.student_weights, weights_pixels, values.trust_model_code
    )
    teacher = None
    if values.teacher:
        told = values.teacher_pixel_mean or values.teacher_pixel_std
        teacher_pixels = _normalization(values, "teacher_pixel", ("128", "64"))
        teacher = ex.NetworkSpec(
            values.teacher,
            teacher_pixels,
            values.teacher_weights,
            teacher_pixels if told else None,
            values.trust_model_code,
        )
    elif not trains:
        phases = tuple(phase for phase in phases if phase.name not in ex.TEACHER_PHASES)
        phases = phases if any(phase.name != "full_precision" for phase in phases) else ()
    for network, flag in ((student, "student_weights_mean"), (teacher, "teacher_pixel_mean")):
        ex.require(
            network is None or network.is_own or not network.weights or network.weights_normalization is not None,
            f"--{flag.partition('_')[0]}_weights without --{flag} and --{flag.replace('mean', 'std')}; say which pixel "
            "normalisation they were trained under, for instance 0 and 1 for raw pixels",
        )
    return ex.Experiment(
        run_dir=run_dir,
        seed=values.seed,
        data=_spec(values, ex.DataSpec, name=values.dataset),
        student=student,
        teacher=teacher,
        quantization=_spec(values, ex.QuantizationSpec, bits_rule=tuple(values.bits_rule)),
        training=_spec(values, ex.TrainingSpec, phases=phases),
        target=_spec(values, ex.TargetSpec),
    )


def flags_of(options: Mapping[str, object]) -> flags.FlagValues:
    """The package's flags as Python gives them: by name, with numbers and lists as they are; the others as defaults.

    Raises:
      ExperimentError: no flag of that name, or a value that it cannot have.
    """
    values = copy.deepcopy(FLAGS)
    for name in values:  # absl's `unparse_flags` logs, and with it makes a handler for the whole process
        values[name].unparse()
    for name, value in options.items():
        near = ", ".join(difflib.get_close_matches(name, values, n=3))
        meant = f"did you mean {near}?" if near else "docs/flags.md has them"
        ex.require(name in values, f"there is no option {name}; options are the flags of qkd_tf.train, {meant}")
        try:
            values[name].parse(_argument(values[name], value))
        except flags.IllegalFlagValueError as error:
            raise ex.ExperimentError(str(error)) from None
    values.mark_as_parsed()
    return values


def _argument(flag: flags.Flag, value: object) -> str | list:
    """What the flag's parser takes."""
    if isinstance(flag, flags.MultiFlag):
        return [value] if isinstance(value, str) else list(value)
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def flag_lines(values: flags.FlagValues = FLAGS, changed_only: bool = False) -> list[str]:
    """The package's flags, or those whose value is not the default, as lines of a flag file of the same experiment."""
    return [
        flag.serialize()
        for flag in map(values.__getitem__, FLAGS)
        if flag.value is not None and not (changed_only and flag.value == flag.default)
    ]


def _spec(values: flags.FlagValues, kind, **given):
    """A spec whose fields are the flags of the same names."""
    return kind(**given, **{f: values[f].value for f in kind.__dataclass_fields__ if f not in given})


def _normalization(values: flags.FlagValues, prefix: str, default: tuple[str, ...] = ()) -> ex.PixelNormalization:
    """Of the flags PREFIX_mean and PREFIX_std; one that is empty has its number of `default`."""
    mean, std = (
        tuple(_numbers(float, flag, values[flag].value or list(default[place : place + 1])))
        for place, flag in enumerate((f"{prefix}_mean", f"{prefix}_std"))
    )
    try:
        return ex.PixelNormalization(mean, std)
    except ex.ExperimentError as error:
        raise ex.ExperimentError(f"--{prefix}_mean, --{prefix}_std: {error}") from None


def _numbers(kind, flag: str, values: list[str]) -> list:
    try:
        return [kind(value) for value in values]
    except ValueError:
        raise ex.ExperimentError(f"--{flag}={','.join(values)}: {kind.__name__} numbers are expected") from None
