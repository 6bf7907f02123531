"""An experiment as a value: frozen, checked once, handed down. Standard library only."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable

from qkd_tf.contract.targets import TARGETS

PHASES = ("full_precision", "self_studying", "co_studying", "tutoring")
TEACHER_PHASES = ("co_studying", "tutoring")
OPTIMIZERS = ("sgd", "adam")
KEPT_EPOCHS = ("best", "last")
PRECISIONS = ("float32", "bfloat16", "float16")
MAX_SIDE = 8_192  # pixels
RESIZES = ("crop", "squash")
STRATEGIES = ("default", "mirrored", "multi_worker", "tpu")
INTERVAL_INITS = ("minmax", "lsq", "mse")
INTERVAL_GRADIENT_SCALES = ("none", "lsq")
EQUALIZATIONS = ("auto", "on", "off")
# Largest channel of a network's kernels over their median one, beyond which training begins from channels of one size.
# ResNets have up to 2.6, and ResNet-8 lost by it at 2 bits; depthwise kernels of MobileNets have 3 to 40, and lose all
# without it at 4 bits.
UNEVEN_CHANNELS = 3.0
BATCH_NORM_STATISTICS = ("auto", "batches", "shift")
# Beginning of what a model in memory is called, whose weights are those of an earlier training, or are yet to learn.
IN_MEMORY = "in_memory:"
TRAINED_IN_MEMORY, UNTRAINED_IN_MEMORY = f"{IN_MEMORY}trained:", f"{IN_MEMORY}untrained:"


class ExperimentError(ValueError):
    """A user's mistake, told in one line: what came, what was expected, how to mend it."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))  # values of flags may have lines


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ExperimentError(message)


def printable(name: str) -> str:
    """A name as the system has it, whose bytes need not be UTF-8, with escapes for those that are not."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def require_known(value: str, known: Iterable[str], what: str) -> None:
    require(value in known, f"unknown {what} {value!r}; known are {', '.join(known)}")


def require_count(value: int, flag: str, lowest: int = 0, highest: int = 1_000_000, why: str = "") -> None:
    """Whole numbers have an end, too: TensorFlow's are of 64 bits, and memory is finite."""
    expected = f"{lowest:,} to {highest:,} are possible{why and '; '}{why}"
    require(lowest <= value <= highest, f"--{flag}={value} is out of range; {expected}")


def require_factor(value: float, flag: str, why: str = "") -> None:
    require(0 <= value < math.inf, f"--{flag}={value} is no factor; 0 or a positive, finite number is expected{why}")


def require_bits(value: int, flag: str) -> None:
    require(2 <= value <= 8, f"--{flag}={value} is out of range; bit widths of 2 to 8 are possible")


def bit_widths(text: str, name: str) -> tuple[int, int]:
    """Bit widths of weights and activations of "w2a2".

    Args:
      name: what the user calls it.

    Raises:
      ExperimentError: other text.
    """
    found = re.fullmatch(r"w(\d+)a(\d+)", text)
    require(found is not None, f"{name}={text}: widths are written as w4a4")
    return int(found[1]), int(found[2])


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Where images come from and how a training batch is made of them.

    Attributes:
      name: "digits", "folder:/path/to/images" or a TFDS image-classification data set.
      data_dir: folder in which TFDS has prepared the set; "" for the TFDS default.
      test_split: split, or folder of a `folder:` set, for the final look; "" takes test, or, of a TFDS set
        without one, validation.
      image_size: pixels of both sides; 0 keeps images as stored.
      resize: a row of RESIZES: how images become of image_size. "crop": the shorter side is resized to
        image_size * 256 / 224, then image_size is cropped at random (training) or at the centre. "squash": both sides
        are resized to image_size, whatever that does to their ratio.
      image_channels: 1 for grey images, 3 for RGB, 0 for those of the set (of a `folder:` set 3).
      validation_fraction: share of the training split, in (0, 1), kept to choose the best epoch.
      crop_padding: black pixels put around a training image before the random crop; images that
        were resized by "crop" have room for the crop already.
      horizontal_flip: mirror half of the training images.
      skip_broken_images: leave out files of a `folder:` set that cannot be decoded, instead of refusing the set.
      max_steps: training steps after which an epoch ends, for a quick trial; 0 for whole epochs.
      max_eval_images: images of each of validation and test that are read, the first; 0 for all.
    """

    name: str
    data_dir: str = ""
    test_split: str = ""
    image_size: int = 0
    resize: str = "crop"
    image_channels: int = 0
    validation_fraction: float = 0.1
    crop_padding: int = 4
    horizontal_flip: bool = True
    batch_size: int = 128
    seed: int = 0
    skip_broken_images: bool = False
    max_steps: int = 0
    max_eval_images: int = 0

    def __post_init__(self):
        for field in ("name", "data_dir", "test_split"):
            given = getattr(self, field)
            flag = "dataset" if field == "name" else field
            told = printable(given)
            require(told == given, f"--{flag}={told} is not UTF-8, as the files of a run are; rename the folder")
        require_known(self.resize, RESIZES, "--resize")
        require(
            self.image_channels in (0, 1, 3),
            f"--image_channels={self.image_channels} is out of range; 1 is grey, 3 is RGB, 0 is what the set has",
        )
        require(0 < self.validation_fraction < 1, f"--validation_fraction={self.validation_fraction} is not in (0, 1)")
        require_count(self.batch_size, "batch_size", 1)
        require_count(self.crop_padding, "crop_padding", highest=MAX_SIDE)
        require_count(self.image_size, "image_size", highest=MAX_SIDE, why="0 keeps the size of the set")
        require_count(self.max_steps, "max_steps", why="0 is for whole epochs")
        require_count(self.max_eval_images, "max_eval_images", highest=10**9, why="0 is for all")

    @property
    def crops_larger(self) -> bool:
        """Whether resized training images are larger than what is cropped of them."""
        return self.image_size > 0 and self.resize == "crop"

    @property
    def eval_images(self) -> slice:
        """The part of validation and test that is read."""
        return slice(self.max_eval_images or None)


@dataclasses.dataclass(frozen=True)
class PixelNormalization:
    """x = (pixel - mean) / std, pixels 0..255; one value for all channels, or one a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        require(
            len(self.mean) == len(self.std) and len(self.mean) > 0,
            f"pixel mean {self.mean} and std {self.std} must have the same number of values",
        )
        require(all(0 < s < math.inf for s in self.std), f"pixel std {self.std} must be positive and finite")
        require(all(math.isfinite(m) for m in self.mean), f"pixel mean {self.mean} must be finite")

    @property
    def fits_input(self) -> bool:
        """Whether one zero point and one scale of an input of 8 bits can be it."""
        return len(self.mean) == 1 and float(self.mean[0]).is_integer() and 0 <= self.mean[0] < 255


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A network, its own input normalisation, and where its first weights come from.

    Attributes:
      name: of the zoo; "package.module:builder"; a .keras or .h5 file or a folder (with a "/") that tf_keras saved; or
        what a model is called that Python hands over, "in_memory:…".
      weights: .h5, .keras, .weights.h5 or .npz file; "" for a random start.
      weights_normalization: the normalisation that its weights, of whatever origin, were trained under; None where
        nobody said.
      trust_code: load saved models that bring code of their own, such as a Lambda layer.
    """

    name: str
    normalization: PixelNormalization
    weights: str = ""
    weights_normalization: PixelNormalization | None = None
    trust_code: bool = False

    @property
    def is_in_memory(self) -> bool:
        return self.name.startswith(IN_MEMORY)

    @property
    def is_builder(self) -> bool:
        return ":" in self.name and not self.is_in_memory

    @property
    def is_saved(self) -> bool:
        return self.name.endswith((".keras", ".h5")) or ("/" in self.name and ":" not in self.name)

    @property
    def is_own(self) -> bool:
        """Whether it is a user's, and none of the zoo."""
        return self.is_in_memory or self.is_builder or self.is_saved

    @property
    def starts_by_chance(self) -> bool:
        """Whether its first weights are random; a builder may give it others."""
        return not self.has_weights and not self.is_builder

    @property
    def has_weights(self) -> bool:
        """Whether it comes with weights of an earlier training, as far as can be told."""
        return bool(self.weights) or self.is_saved or self.name.startswith(TRAINED_IN_MEMORY)


@dataclasses.dataclass(frozen=True)
class BitsRule:
    """Bit widths of the layers whose whole name fits a regular expression; None leaves a width as it is."""

    pattern: str
    weight_bits: int | None = None
    activation_bits: int | None = None

    @classmethod
    def parse(cls, text: str) -> "BitsRule":
        """Reads "block_1_.*=w4a8", "stem=w8" or "logits=a6".

        Raises:
          ExperimentError: another form, no regular expression, or bit widths that there are not.
        """
        pattern, _, widths = text.rpartition("=")
        found = re.fullmatch(r"(?:w(\d{1,4}))?(?:a(\d{1,4}))?", widths)
        require(
            bool(pattern and widths and found),
            f"--bits_rule={text} has another form than 'regex=w4a8'; either of w4 and a8 may be left out",
        )
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ExperimentError(f"--bits_rule={text}: {pattern} is no regular expression: {error}") from None
        numbers = [int(digits) if digits else None for digits in found.groups()]
        for number in numbers:
            require_bits(8 if number is None else number, f"bits_rule={text}: bits")
        return cls(pattern, *numbers)

    def __str__(self) -> str:
        parts = (("w", self.weight_bits), ("a", self.activation_bits))
        return f"{self.pattern}=" + "".join(f"{letter}{bits}" for letter, bits in parts if bits is not None)


@dataclasses.dataclass(frozen=True)
class QuantizationSpec:
    """Bit widths and the options of the learned intervals (flags of the same names say more).

    Attributes:
      bits_rule: widths of single layers, each as `BitsRule.parse` reads it.
      equalize_channels: a row of EQUALIZATIONS; "auto": for calibration alone, and before training where a kernel's
        channels differ by more than UNEVEN_CHANNELS.
    """

    weight_bits: int = 4
    activation_bits: int = 4
    first_layer_bits: int = 8
    last_layer_bits: int = 8
    residual_bits: int = 8
    interval_init: str = "mse"
    interval_gradient_scale: str = "lsq"
    narrow_range: bool = True
    mask_weight_gradient: bool = True
    calibration_batches: int = 8
    interval_gradient_share: float = 0.125
    bits_rule: tuple[str, ...] = ()
    ewgs_scale: float = 0.0
    equalize_channels: str = "auto"

    def __post_init__(self):
        require_known(self.equalize_channels, EQUALIZATIONS, "--equalize_channels")
        for field in ("weight_bits", "activation_bits", "first_layer_bits", "last_layer_bits", "residual_bits"):
            require_bits(getattr(self, field), field)
        _ = self.rules  # a rule that cannot be read is told at once
        require_known(self.interval_init, INTERVAL_INITS, "--interval_init")
        require_known(self.interval_gradient_scale, INTERVAL_GRADIENT_SCALES, "--interval_gradient_scale")
        require_count(self.calibration_batches, "calibration_batches", 1)
        require(
            0 < self.interval_gradient_share <= 1,
            f"--interval_gradient_share={self.interval_gradient_share} is not in (0, 1]; 1 takes all examples",
        )
        require(
            0 <= self.ewgs_scale < 1,
            f"--ewgs_scale={self.ewgs_scale} is not in [0, 1); 0 is the plain straight-through gradient",
        )

    @property
    def rules(self) -> list[BitsRule]:
        return [BitsRule.parse(text) for text in self.bits_rule]


@dataclasses.dataclass(frozen=True)
class PhaseSpec:
    """One entry of --phases: which row of the method, for how many epochs, from which learning rate."""

    name: str
    epochs: int
    learning_rate: float

    def __post_init__(self):
        require_known(self.name, PHASES, "phase in --phases")
        require(
            0 < self.epochs <= 1_000_000,
            f"--epochs: phase {self.name} has {self.epochs} epochs; 1 to 1,000,000 are expected",
        )
        require(
            0 < self.learning_rate < math.inf,
            f"--learning_rates: phase {self.name} has {self.learning_rate}; a positive number is expected",
        )


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """What all phases share: optimizer and loss settings.

    Attributes:
      phases: in order; none for intervals from calibration alone, without training.
      keep_epoch: which epoch's student goes on from a phase: the "best" on the validation split, or the "last".
      one_cosine: learning rates fall by one cosine over all quantized phases, not by one in each of them.
      weight_decay: factor of the L2 term on kernels, 0.5 * decay * |w|^2; never on intervals.
      weight_interval_lr_ratio: learning rate of weight intervals as a share of the phase's.
      activation_interval_lr_ratio: the same for activation intervals.
      interval_max_change: largest change of an interval in one step, as a share of it; 0 for no bound.
      teacher_lr_ratio: the learning rate of the teacher in co-studying, as a share of the phase's.
      allow_weak_teacher: train even if the teacher is near chance or far below the student.
      temperature: T of the softened distributions (QKD: 2).
      distillation_weight: factor of T^2 * KL beside the cross-entropy (QKD: 1).
      mixed_precision: of convolutions and matrix products in training; "float32" for none.
      jit_compile: compile the training step with XLA.
      steps_per_execution: steps that run before losses are looked at.
      strategy: which devices train; "default" for one.
      batch_norm_batches: training batches that re-estimate the quantized student's BatchNorm statistics before each
        validation, or after calibration alone; 0 for none, -1 for the default: 20, and none after calibration alone.
      batch_norm_statistics: what these batches tell: the statistics themselves ("batches"), or how far they are from
        full precision's ("shift"); "auto" takes the shift of a student that came with weights.
      dampening: what the factor of the dampening loss rises to over the quantized phases; 0 for none.
      freeze_threshold_start, freeze_threshold_end: frequency of oscillation, in changes of direction a step, above
        which a weight is frozen, at the first and at the last step of the quantized phases; start 0 freezes nothing.
      deterministic: equal flags give equal bits; None where that costs little, on the CPU.
      checkpoint_every_steps: steps of an epoch after which it is saved, again and again; 0 for whole epochs alone.
    """

    phases: tuple[PhaseSpec, ...]
    optimizer: str = "sgd"
    momentum: float = 0.9
    keep_epoch: str = "best"
    one_cosine: bool = True
    weight_decay: float = 1e-4
    weight_interval_lr_ratio: float = 1.0
    activation_interval_lr_ratio: float = 1.0
    interval_max_change: float = 0.02
    teacher_lr_ratio: float = 1.0
    allow_weak_teacher: bool = False
    temperature: float = 2.0
    distillation_weight: float = 1.0
    mixed_precision: str = "float32"
    jit_compile: bool = False
    steps_per_execution: int = 1
    strategy: str = "default"
    batch_norm_batches: int = -1
    batch_norm_statistics: str = "auto"
    dampening: float = 0.0
    freeze_threshold_start: float = 0.0
    freeze_threshold_end: float = 0.01
    deterministic: bool | None = None
    checkpoint_every_steps: int = 0

    @property
    def phase_names(self) -> list[str]:
        return [phase.name for phase in self.phases]

    def shifts_statistics(self, pretrained: frozenset[str]) -> bool:
        """Whether a quantized student takes the statistics of full precision, moved by what quantization moves.

        Args:
          pretrained: names, of "student" and "teacher", that came with weights, and so with statistics.
        """
        asked = self.batch_norm_statistics
        return self.batch_norm_batches != 0 and (asked == "shift" or (asked == "auto" and "student" in pretrained))

    def __post_init__(self):
        require_known(self.optimizer, OPTIMIZERS, "--optimizer")
        require_known(self.keep_epoch, KEPT_EPOCHS, "--keep_epoch")
        require_known(self.batch_norm_statistics, BATCH_NORM_STATISTICS, "--batch_norm_statistics")
        require(0 < self.temperature < math.inf, f"--temperature={self.temperature} is not positive and finite")
        require(0 <= self.momentum < 1, f"--momentum={self.momentum} is not in [0, 1)")
        ratios = ("teacher_lr_ratio", "weight_interval_lr_ratio", "activation_interval_lr_ratio")
        require(
            0 <= self.interval_max_change < 1,
            f"--interval_max_change={self.interval_max_change} is not in [0, 1); 0 is no bound",
        )
        for field in ("weight_decay", "distillation_weight", *ratios):
            require_factor(getattr(self, field), field)
        require_known(self.mixed_precision, PRECISIONS, "--mixed_precision")
        require(
            not self.jit_compile or self.mixed_precision == "float32",
            f"--jit_compile and --mixed_precision={self.mixed_precision} do not go together: "
            "XLA takes the step as it is written; leave one of them out",
        )
        require_count(self.steps_per_execution, "steps_per_execution", 1, why="1 looks at every step")
        require_known(self.strategy, STRATEGIES, "--strategy")
        require(
            not self.jit_compile or self.strategy == "default",
            f"--jit_compile and --strategy={self.strategy} do not go together: the step that is compiled is that "
            "of one device (a TPU's is compiled in any case); leave one of them out",
        )
        require_count(self.checkpoint_every_steps, "checkpoint_every_steps", why="0 saves whole epochs alone")
        require_count(
            self.batch_norm_batches,
            "batch_norm_batches",
            -1,
            why="0 keeps the moving statistics, -1 takes the default",
        )
        require_factor(self.dampening, "dampening", "; 0 is none, 0.1 the authors'")
        for field in ("freeze_threshold_start", "freeze_threshold_end"):
            value = getattr(self, field)
            require(0 <= value <= 1, f"--{field}={value} is not in [0, 1]; it is a share of the steps")
        require(
            self.freeze_threshold_start == 0 or self.freeze_threshold_end <= self.freeze_threshold_start,
            f"--freeze_threshold_end={self.freeze_threshold_end} is above "
            f"--freeze_threshold_start={self.freeze_threshold_start}; the threshold falls",
        )


@dataclasses.dataclass(frozen=True)
class TargetSpec:
    """What the file is for, as far as it can be told before training.

    Attributes:
      target: a row of TARGETS.
      max_flash_bytes, max_ram_bytes: what there is room for, weights and activations; 0 for no limit.
    """

    target: str = "phone"
    max_flash_bytes: int = 0
    max_ram_bytes: int = 0

    def __post_init__(self):
        require_known(self.target, TARGETS, "--target")
        for field in ("max_flash_bytes", "max_ram_bytes"):
            require_count(getattr(self, field), field, highest=1 << 62, why="0 is no limit")

    @property
    def judge(self) -> str:
        """The row of ARITHMETICS in which the student counts."""
        return TARGETS[self.target].judges[0]

    @property
    def packs_int4(self) -> bool:
        """Whether kernels that fit INT4 are stored two a byte there."""
        return TARGETS[self.target].auto == "int4"


# MobileNetV2 at 4 bits lost by rates above the second on fewer pictures than the first.
FEW_PICTURES, RATE_OF_FEW = 10_000, 0.001


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the outcome of a run, and the folder it is written to."""

    run_dir: str
    seed: int
    data: DataSpec
    student: NetworkSpec
    teacher: NetworkSpec | None
    quantization: QuantizationSpec
    training: TrainingSpec
    target: TargetSpec = TargetSpec()

    def __post_init__(self):
        require(bool(self.run_dir.strip()), "--run_dir is empty; give a folder for the run, such as runs/my_run")
        longest = max(len(part.encode(errors="surrogateescape")) for part in self.run_dir.split("/"))
        require(longest <= 255, f"--run_dir has a name of {longest} bytes in it; a folder's name has at most 255")
        require_count(self.seed, "seed", highest=2**32 - 1)
        mean = self.student.normalization.mean
        require(
            self.student.normalization.fits_input,
            f"--student_pixel_mean={','.join(map(str, mean))} must be one whole number in 0..254: "
            "it becomes the zero point of the .tflite input, which all channels share",
        )
        for phase in self.training.phases:
            require(
                self.teacher is not None or phase.name not in TEACHER_PHASES,
                f"phase {phase.name} in --phases needs a teacher; give --teacher, or leave the phase out of --phases",
            )
            given = [network.has_weights for network in (self.student, self.teacher) if network]
            require(
                phase.name != "full_precision" or not all(given),
                "phase full_precision has nothing to train: every network came with weights; leave it out of --phases",
            )
        require(
            not self.training.phases or any(phase.name != "full_precision" for phase in self.training.phases),
            "--phases=full_precision alone trains no quantized student; add self_studying, co_studying or tutoring",
        )
        require(
            self.quantization.ewgs_scale == 0 or self.training.mixed_precision == "float32",
            f"--ewgs_scale={self.quantization.ewgs_scale} and --mixed_precision={self.training.mixed_precision} "
            "do not go together: activations would be rounded in half precision; leave one of them out",
        )

    @property
    def notes(self) -> list[str]:
        """What is allowed and yet seldom meant, a line each."""
        names = [phase.name for phase in self.training.phases]
        before = names[: names.index("full_precision")] if "full_precision" in names else names
        random = [("student", self.student, before)]
        random.append(("teacher", self.teacher, [name for name in before if name in TEACHER_PHASES]))
        return [
            f"note: {phases[0]} starts with a {role} of random weights; give --{role}_weights, "
            "or put full_precision before it in --phases"
            for role, network, phases in random
            if network and phases and network.starts_by_chance
        ]

    def notes_on(self, num_train: int) -> list[str]:
        """What to know of a student that came with weights and is to train on few pictures, a line each."""
        fastest = max((phase.learning_rate for phase in self.training.phases), default=0.0)
        if not self.student.has_weights or num_train >= FEW_PICTURES or fastest <= RATE_OF_FEW:
            return []
        return [
            f"note: {num_train:,} training images and a student that came with weights: --learning_rates={fastest:g} "
            f"takes more from it than so few can give; begin with {RATE_OF_FEW:g} "
            '(benchmarks/README.md, "The flagship", has what was measured)'
        ]

    @property
    def equalized_spread(self) -> float | None:
        """Spread of a kernel's channels, largest over median, beyond which all kernels get channels of one size.

        None for never.
        """
        asked = self.quantization.equalize_channels
        if asked == "auto":
            return UNEVEN_CHANNELS if self.training.phases else 1.0
        return {"on": 1.0, "off": None}[asked]

    @property
    def full_precision_origin(self) -> str:
        """Where the float student that is quantized has its weights from.

        "trained" here; "weights", which came with it; "builder", which may have given it some; or "random".
        """
        if self.student.has_weights:
            return "weights"
        if any(phase.name == "full_precision" for phase in self.training.phases):
            return "trained"
        return "builder" if self.student.is_builder else "random"

    @property
    def teacher_begins(self) -> bool:
        """Whether the teacher teaches as it came, before any phase full_precision."""
        before = list(itertools.takewhile(lambda name: name != "full_precision", self.training.phase_names))
        trained_here = len(before) < len(self.training.phases) and not (self.teacher and self.teacher.has_weights)
        return self.teacher is not None and any(
            name in TEACHER_PHASES for name in (before if trained_here else self.training.phase_names)
        )

    @property
    def unnamed_weights(self) -> frozenset[str]:
        """Which of "student" and "teacher" begin with weights of chance that another start need not repeat."""
        networks = {"student": self.student, "teacher": self.teacher}
        return frozenset(
            name for name, network in networks.items() if network and network.is_in_memory and not network.has_weights
        )

    @property
    def pretrained(self) -> frozenset[str]:
        """Which of "student" and "teacher" came with weights."""
        networks = {"student": self.student, "teacher": self.teacher}
        return frozenset(name for name, network in networks.items() if network and network.has_weights)
