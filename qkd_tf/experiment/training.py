"""Phases, optimizers, losses and devices."""

import dataclasses
import math

from qkd_tf.experiment.checks import require, require_bits, require_count, require_factor, require_known
from qkd_tf.experiment.class_weights import require_weights
from qkd_tf.experiment.option import as_flag, option

# Phase -> its epochs where none are given: QKD's of CIFAR, and before them He et al.'s of ResNets in full precision.
EPOCHS = {"full_precision": 160, "self_studying": 30, "co_studying": 100, "tutoring": 70}
PHASES = tuple(EPOCHS)
TEACHER_PHASES = ("co_studying", "tutoring")
FLOAT_BITS = "32"  # entry of --phase_bits for full_precision
OPTIMIZERS = ("sgd", "adam")
OF_INTERVALS = (*OPTIMIZERS, "relative_adam")
KEPT_EPOCHS = ("best", "last")
PRECISIONS = ("float32", "bfloat16", "float16")
STRATEGIES = ("default", "mirrored", "multi_worker", "tpu")
BATCH_NORM_STATISTICS = ("auto", "batches", "shift")
# Below this number, pictures are few: BatchNorm statistics measured on them are far from full precision's. On more
# pictures a student trains far away from its start, so statistics shifted from those of its start no longer fit: on
# CIFAR-10's 49,000 pictures they cost ResNet-8 4 points.
FEW_PICTURES = 10_000
RATIO_OF_FEW = 0.1  # of the teacher's rate to the student's on few pictures: at the full rate the teacher forgets


def default_phases(has_teacher: bool) -> list[str]:
    """Names of the phases if none are given: those of QKD, or without a teacher only self_studying."""
    return ["self_studying", *(TEACHER_PHASES if has_teacher else ())]


@dataclasses.dataclass(frozen=True)
class PhaseSpec:
    """One entry of --phases: the phase, its epochs and its first learning rate.

    Attributes:
      rate_is_default: whether no rate was given, so that it may depend on the number of images.
      bits: bit widths of weights and activations in this phase; None for the experiment's own.
    """

    name: str
    epochs: int
    learning_rate: float
    rate_is_default: bool = False
    bits: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        require_known(self.name, PHASES, "phase", "--phases")
        require(
            0 < self.epochs <= 1_000_000,
            f"--epochs: phase {self.name} has {self.epochs} epochs; 1 to 1,000,000 are expected",
        )
        require(
            0 < self.learning_rate < math.inf,
            f"--learning_rates: phase {self.name} has {self.learning_rate}; a positive number is expected",
        )
        require(
            self.bits is None or self.name != "full_precision",
            f"--phase_bits: phase {self.name} trains in float; its entry is {FLOAT_BITS}",
        )
        for num_bits in self.bits or ():
            require_bits(num_bits, "phase_bits")


FEW_VALIDATION = 100  # images, of which the best of many epochs is largely chance
BATCH_NORM_BATCHES = 20  # where the flag leaves it open
FACTORS = ("weight_decay", "distillation_weight", "label_weight", "feature_distillation_weight")
FEW_WRONG = 2  # validation images, by which two students differ by chance
BITS_TO_TRAIN = 4  # up to which training brings most students more than calibration, even on few pictures


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """What all phases share: optimizer and loss settings."""

    phases: tuple[PhaseSpec, ...]  # in order; none for intervals from calibration alone, without training
    keep_epoch: str = option(
        "best",
        "Epoch whose student a phase passes on: the best on validation, or the last. The last is better with a small "
        "validation split, where the best of many epochs is a matter of chance. With best, for a student with "
        f"pretrained weights on fewer than {FEW_PICTURES:,} training images, the student from before the phase is kept "
        f"unless an epoch is better; at up to {BITS_TO_TRAIN} bits an epoch may make up to {FEW_WRONG} more mistakes.",
        choices=KEPT_EPOCHS,
    )
    one_cosine: bool = option(
        True,
        "Learning rates fall along one cosine over all quantized phases, scaled to the first rate of each; otherwise "
        "along one cosine per phase.",
    )
    optimizer: str = option("sgd", "Optimizer of both networks (QKD: sgd).", choices=OPTIMIZERS)
    interval_optimizer: str | None = option(
        None,
        "Optimizer of the student's intervals. relative_adam: Adam whose steps are shares of the interval, so that a "
        "learning rate of 0.01 changes it by about 1 % in a step; default: that of --optimizer (QKD).",
        choices=OF_INTERVALS,
    )
    momentum: float = option(0.9, "Momentum of sgd (QKD: 0.9).")
    weight_decay: float = option(0.0001, "L2 factor on kernels, never on intervals (QKD: 1e-4).")
    weight_interval_lr_ratio: float = option(
        1.0,
        "Learning rate of weight intervals, as a multiple of the phase's (QKD, without LSQ's gradient scale: 0.01).",
    )
    activation_interval_lr_ratio: float = option(
        1.0, "Learning rate of activation intervals, as a multiple of the phase's (QKD: 1)."
    )
    interval_max_change: float = option(
        0.02, "Largest change of an interval in one training step, as a share of it, in [0, 1); 0: no limit (QKD)."
    )
    teacher_lr_ratio: float = dataclasses.field(
        default=1.0,
        metadata=as_flag(
            None,
            "Learning rate of the teacher in co_studying, as a multiple of the phase's; default: 1 (QKD), or "
            f"{RATIO_OF_FEW:g} for a teacher with pretrained weights on fewer than {FEW_PICTURES:,} training images.",
        ),
    )
    teacher_ratio_is_default: bool = False  # none was given, so that it may depend on the number of images
    allow_weak_teacher: bool = option(
        False,
        "Accept a teacher that is near chance or far below the student on validation images; default: stop.",
        section="Networks",
    )
    temperature: float = option(2.0, "Temperature T of the softened distributions (QKD: 2).")
    distillation_weight: float = option(
        1.0, "Factor of the distillation loss, T^2*KL, beside the cross-entropy (QKD: 1)."
    )
    distillation_weight_end: float | None = option(
        None,
        "Value of --distillation_weight at the last step, reached along the cosine of the learning rate; default: "
        "constant (QKD).",
    )
    label_weight: float = option(
        1.0,
        "Factor of the cross-entropy in the student's loss, in phases with a teacher (QKD: 1); 0: learn from the "
        "teacher only.",
    )
    feature_distillation_weight: float = option(
        0.0,
        "Factor, in the student's loss, of the mean squared difference between the features of student and teacher: "
        "the input of their last layers, which must have the same size. The teacher's features are quantized like the "
        "student's (SQuaT); 0: none.",
    )
    label_smoothing: float = option(
        0.0, "Share of each label, in [0, 1), that is spread evenly over all classes in the cross-entropy; 0: none."
    )
    class_weights: tuple[str, ...] = ()  # as --class_weights has them; `class_weights` reads them
    mixed_precision: str = option(
        "float32",
        "Precision of convolutions in training: bfloat16 for CPUs that support it (slower on depthwise convolutions), "
        "float16 for GPUs (with loss scaling).",
        choices=PRECISIONS,
        section="Accelerators",
    )
    gradient_accumulation_steps: int = option(
        1,
        "Number of equal parts of a batch that run one after the other before one optimizer step. It saves memory; "
        "BatchNormalization sees one part at a time.",
        section="Accelerators",
    )
    jit_compile: bool = option(
        False, "Compile the training step with XLA; for accelerators, slower on CPUs.", section="Accelerators"
    )
    steps_per_execution: int = option(
        1,
        "Training steps per call of TensorFlow. More steps save overhead, but losses are checked only after each call.",
        section="Accelerators",
    )
    strategy: str = option(
        "default",
        "Devices that share each batch. default: one; mirrored: all GPUs of this machine; multi_worker: all machines "
        "in TF_CONFIG; tpu: a TPU.",
        choices=STRATEGIES,
        section="Accelerators",
    )
    batch_norm_batches: int = option(
        -1,
        "Training batches, at most one epoch, from which BatchNorm statistics are estimated before a quantized "
        "student is validated; 0: never; -1: 20, or 0 without phases.",
        section="Low-bit networks",
    )
    batch_norm_statistics: str = option(
        "auto",
        "BatchNorm statistics of a quantized student. batches: those of --batch_norm_batches. shift: those of full "
        "precision, shifted by what quantization changes in these batches. auto: shift for a student with pretrained "
        f"weights after calibration, and in training on fewer than {FEW_PICTURES:,} images; otherwise batches.",
        choices=BATCH_NORM_STATISTICS,
        section="Low-bit networks",
    )
    dampening: float = option(
        0.0,
        "Factor, at the last step, of the loss that pulls weights towards their integers; it rises from 0 along a "
        "cosine (Nagel et al. 2022: 0.1).",
        section="Low-bit networks",
    )
    freeze_threshold_start: float = option(
        0.0,
        "Freeze a weight whose integer changes direction more often than this, in changes per step, in [0, 1]. This is "
        "the threshold at the first quantized step; 0: never freeze (Nagel et al. 2022: 0.1).",
        section="Low-bit networks",
    )
    freeze_threshold_end: float = option(
        0.01,
        "The same threshold at the last quantized step; it falls along a cosine (Nagel et al. 2022: 0.01).",
        section="Low-bit networks",
    )
    weights_ema: float = option(
        0.0,
        "Decay, in [0, 1), of a moving average of a quantized student's weights and intervals over the steps of a "
        "phase. The average is validated and passed on instead of them; 0: none, 0.99 averages about 100 steps.",
        section="Low-bit networks",
    )
    deterministic: bool | None = option(
        None,
        "Make equal flags give bit-identical results, even if a run is killed and resumed; default: only on a CPU, "
        "since it costs time.",
        section="Run",
    )
    checkpoint_every_steps: int = option(
        0, "Save a checkpoint every N steps within an epoch; 0: only at the end of each epoch.", section="Run"
    )

    @property
    def phase_names(self) -> list[str]:
        return [phase.name for phase in self.phases]

    @property
    def phase_labels(self) -> list[str]:
        """Names of the phases in results and messages; the second phase of one name is NAME_2."""
        names = self.phase_names
        if all(phase.bits is None for phase in self.phases):
            return names
        turns = [names[: place + 1].count(name) for place, name in enumerate(names)]
        return [name if turn == 1 else f"{name}_{turn}" for name, turn in zip(names, turns, strict=True)]

    @property
    def bits(self) -> list[tuple[int, int]]:
        """Bit widths of the phases, in order, each once."""
        return list(dict.fromkeys(phase.bits for phase in self.phases if phase.bits is not None))

    @property
    def distills(self) -> bool:
        """Whether the student learns from the teacher in any phase."""
        return any(name in TEACHER_PHASES for name in self.phase_names)

    @property
    def last_distillation_weight(self) -> float:
        """The distillation weight at the last step."""
        return self.distillation_weight if self.distillation_weight_end is None else self.distillation_weight_end

    @property
    def num_batch_norm_batches(self) -> int:
        """Batches from which BatchNorm statistics are estimated in a training; 0: never."""
        return BATCH_NORM_BATCHES if self.batch_norm_batches < 0 else self.batch_norm_batches

    def shifts_calibrated_statistics(self, pretrained: frozenset[str]) -> bool:
        """Whether a calibrated student gets full precision's BatchNorm statistics, moved by what quantization shifts.

        Args:
          pretrained: which of "student" and "teacher" came with weights, and so with statistics.
        """
        asked = self.batch_norm_statistics
        return self.batch_norm_batches != 0 and (asked == "shift" or (asked == "auto" and "student" in pretrained))

    def shifts_trained_statistics(self, pretrained: frozenset[str], num_train: int) -> bool:
        """Whether a student in training gets them, too; with "auto" on few pictures, where it stays near its start.

        Args:
          num_train: training images.
        """
        by_default = not self.phases or num_train < FEW_PICTURES
        asked = self.batch_norm_statistics == "shift"
        return self.shifts_calibrated_statistics(pretrained) and (asked or by_default)

    def may_keep_start(self, pretrained: frozenset[str], num_train: int) -> bool:
        """Whether a quantized phase keeps the student with which it began unless an epoch is better on validation.

        Training on few pictures can cost a student with pretrained weights more than it brings.

        Args:
          num_train: training images.
        """
        return self.keep_epoch == "best" and "student" in pretrained and num_train < FEW_PICTURES

    def __post_init__(self) -> None:
        require_known(self.optimizer, OPTIMIZERS, "--optimizer")
        require_known(self.interval_optimizer or self.optimizer, OF_INTERVALS, "--interval_optimizer")
        require_known(self.keep_epoch, KEPT_EPOCHS, "--keep_epoch")
        require_known(self.batch_norm_statistics, BATCH_NORM_STATISTICS, "--batch_norm_statistics")
        require(0 < self.temperature < math.inf, f"--temperature={self.temperature} is not positive and finite")
        require(0 <= self.momentum < 1, f"--momentum={self.momentum} is not in [0, 1)")
        require(
            0 <= self.label_smoothing < 1,
            f"--label_smoothing={self.label_smoothing} is not in [0, 1); 0 is none, 0.1 is usual",
        )
        require_weights(self.class_weights)
        ratios = ("teacher_lr_ratio", "weight_interval_lr_ratio", "activation_interval_lr_ratio")
        require(
            0 <= self.interval_max_change < 1,
            f"--interval_max_change={self.interval_max_change} is not in [0, 1); 0 is no bound",
        )
        for field in (*FACTORS, *ratios):
            require_factor(getattr(self, field), field)
        require_factor(self.last_distillation_weight, "distillation_weight_end")
        require(
            not self.distills or max(self.label_weight, self.distillation_weight, self.last_distillation_weight) > 0,
            f"--label_weight={self.label_weight} and --distillation_weight={self.distillation_weight} leave a student "
            "nothing to learn from in phases with a teacher; make one of them positive",
        )
        require_known(self.mixed_precision, PRECISIONS, "--mixed_precision")
        require(
            not self.jit_compile or self.mixed_precision == "float32",
            f"--jit_compile and --mixed_precision={self.mixed_precision} cannot be combined: "
            "XLA compiles the step without TensorFlow's rewrite to half precision; leave one of them out",
        )
        require_count(self.gradient_accumulation_steps, "gradient_accumulation_steps", 1, why="1 runs a batch whole")
        require(
            self.gradient_accumulation_steps == 1 or self.strategy == "default",
            f"--gradient_accumulation_steps={self.gradient_accumulation_steps} and --strategy={self.strategy} cannot "
            "be combined: several devices already share a batch; leave one of them out",
        )
        require_count(self.steps_per_execution, "steps_per_execution", 1, why="1 checks the losses after every step")
        require_known(self.strategy, STRATEGIES, "--strategy")
        require(
            not self.jit_compile or self.strategy == "default",
            f"--jit_compile and --strategy={self.strategy} cannot be combined: only the step of one "
            "device is compiled (a TPU compiles its step anyway); leave one of them out",
        )
        require_count(self.checkpoint_every_steps, "checkpoint_every_steps", why="0 saves only at the end of epochs")
        require_count(
            self.batch_norm_batches,
            "batch_norm_batches",
            -1,
            why="0 keeps the moving statistics, -1 takes the default",
        )
        require(
            0 <= self.weights_ema < 1,
            f"--weights_ema={self.weights_ema} is not in [0, 1); 0 is no average, 0.99 averages about 100 steps",
        )
        require_factor(self.dampening, "dampening", "; 0 is none, 0.1 is the authors'")
        for field in ("freeze_threshold_start", "freeze_threshold_end"):
            value = getattr(self, field)
            require(0 <= value <= 1, f"--{field}={value} is not in [0, 1]; it is a share of the steps")
        require(
            self.freeze_threshold_start == 0 or self.freeze_threshold_end <= self.freeze_threshold_start,
            f"--freeze_threshold_end={self.freeze_threshold_end} is above "
            f"--freeze_threshold_start={self.freeze_threshold_start}; the threshold has to fall",
        )
