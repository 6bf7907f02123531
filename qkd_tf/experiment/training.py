"""Phases, optimizers, losses and devices."""

import dataclasses
import math

from qkd_tf.experiment.checks import require, require_bits, require_count, require_factor, require_known
from qkd_tf.experiment.class_weights import require_weights
from qkd_tf.experiment.option import option

# Phase -> its epochs where none are given: QKD's of CIFAR, and before them He et al.'s of ResNets in full precision.
EPOCHS = {"full_precision": 160, "self_studying": 30, "co_studying": 100, "tutoring": 70}
PHASES = tuple(EPOCHS)
TEACHER_PHASES = ("co_studying", "tutoring")
FLOAT_BITS = "32"  # entry of --phase_bits for full_precision
OPTIMIZERS = ("sgd", "adam")
KEPT_EPOCHS = ("best", "last")
PRECISIONS = ("float32", "bfloat16", "float16")
STRATEGIES = ("default", "mirrored", "multi_worker", "tpu")
BATCH_NORM_STATISTICS = ("auto", "batches", "shift")
# Below it, pictures are few: their own BatchNorm statistics are far from full precision's. With more of them, a student
# trains far from its start: on CIFAR-10's 49,000 ResNet-8 lost 4 points by statistics shifted from those of its start.
FEW_PICTURES = 10_000


def default_phases(has_teacher: bool) -> list[str]:
    """Names of the phases where none are given: QKD's, or what is left of them without a teacher."""
    return ["self_studying", *(TEACHER_PHASES if has_teacher else ())]


@dataclasses.dataclass(frozen=True)
class PhaseSpec:
    """One entry of --phases: which row of the method, for how many epochs, from which learning rate.

    Attributes:
      rate_is_default: whether the rate was left open, so that the number of images may settle it.
      bits: widths of weights and activations that the student has in this phase; None for the experiment's own.
    """

    name: str
    epochs: int
    learning_rate: float
    rate_is_default: bool = False
    bits: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        require_known(self.name, PHASES, "phase in --phases")
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


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """What all phases share: optimizer and loss settings."""

    phases: tuple[PhaseSpec, ...]  # in order; none for intervals from calibration alone, without training
    keep_epoch: str = option(
        "best",
        "Student that goes on from a phase: the best epoch's on validation, or the last one's, where a small "
        "validation split would choose by chance among epochs of a learning rate that falls to 0. With best, a student "
        f"that came with weights and trains on fewer than {FEW_PICTURES:,} images has to get better. Otherwise it goes "
        "on as it was before the phase.",
        choices=KEPT_EPOCHS,
    )
    one_cosine: bool = option(
        True,
        "Learning rates fall by one cosine over all quantized phases, each phase's from its own first rate; else each "
        "phase has a cosine of its own.",
    )
    optimizer: str = option("sgd", "Optimizer of both networks (QKD: sgd).", choices=OPTIMIZERS)
    momentum: float = option(0.9, "Momentum of sgd (QKD: 0.9).")
    weight_decay: float = option(0.0001, "L2 factor on kernels, never on intervals (QKD: 1e-4).")
    weight_interval_lr_ratio: float = option(
        1.0, "Learning rate of weight intervals, as a share (QKD, unscaled: 0.01)."
    )
    activation_interval_lr_ratio: float = option(1.0, "Learning rate of activation intervals, as a share (QKD: 1).")
    interval_max_change: float = option(
        0.02, "Largest change of an interval in one step, in [0, 1), as a share of it; 0: no bound (QKD)."
    )
    teacher_lr_ratio: float = option(1.0, "Learning rate of the teacher in co_studying, as a share (QKD: 1).")
    allow_weak_teacher: bool = option(
        False,
        "Let a teacher teach that is near chance or far below the student on validation images; default: stop.",
        section="Networks",
    )
    temperature: float = option(2.0, "T of the softened distributions (QKD: 2).")
    distillation_weight: float = option(1.0, "Factor of T^2*KL beside the cross-entropy (QKD: 1).")
    distillation_weight_end: float | None = option(
        None,
        "The same at the last step; it gets there by the learning rate's cosine; default: one factor throughout (QKD).",
    )
    label_weight: float = option(
        1.0,
        "Factor of the cross-entropy in the student's loss, in phases that distill (QKD: 1); 0: the teacher alone.",
    )
    label_smoothing: float = option(
        0.0, "Share of a label, in [0, 1), that all classes have in equal parts in the cross-entropy; 0: none."
    )
    class_weights: tuple[str, ...] = ()  # as --class_weights has them; `class_weights` reads them
    mixed_precision: str = option(
        "float32",
        "Precision of convolutions in training: bfloat16 (CPUs that have it; slower on depthwise ones), "
        "float16 (GPUs, with loss scaling).",
        choices=PRECISIONS,
        section="Accelerators",
    )
    gradient_accumulation_steps: int = option(
        1,
        "Equal parts of a batch that run one after the other, with one step for all: a part's memory for a whole "
        "batch's gradient. BatchNormalization sees a part.",
        section="Accelerators",
    )
    jit_compile: bool = option(
        False, "Compile the training step with XLA: for accelerators; slower on CPUs.", section="Accelerators"
    )
    steps_per_execution: int = option(
        1, "Training steps that run before losses are looked at; spares overhead.", section="Accelerators"
    )
    strategy: str = option(
        "default",
        "Devices that train: one; all GPUs of this machine; all machines of TF_CONFIG; a TPU. They share each batch.",
        choices=STRATEGIES,
        section="Accelerators",
    )
    batch_norm_batches: int = option(
        -1,
        "Training batches, at most an epoch's, that re-estimate BatchNorm statistics before a quantized student's "
        "validation; 0: never; -1: 20, and 0 without phases.",
        section="Low-bit networks",
    )
    batch_norm_statistics: str = option(
        "auto",
        "What those batches tell: the statistics themselves, or how far they are from full precision's, which is added "
        "to its own. auto: for a student that came with weights the shift, after calibration and, on fewer than "
        f"{FEW_PICTURES:,} training images, in training; else the statistics.",
        choices=BATCH_NORM_STATISTICS,
        section="Low-bit networks",
    )
    dampening: float = option(
        0.0,
        "Factor of the loss that draws weights to their integers, as it is at the last step; rises from 0 by a cosine "
        "(Nagel et al. 2022: 0.1).",
        section="Low-bit networks",
    )
    freeze_threshold_start: float = option(
        0.0,
        "Changes of direction a step, in [0, 1], above which a weight is frozen, at the first quantized step; 0: never "
        "(Nagel et al. 2022: 0.1).",
        section="Low-bit networks",
    )
    freeze_threshold_end: float = option(
        0.01,
        "The same at the last quantized step; falls by a cosine (Nagel et al. 2022: 0.01).",
        section="Low-bit networks",
    )
    weights_ema: float = option(
        0.0,
        "Decay, in [0, 1), of an average of a quantized student's weights and intervals over a phase's steps, which is "
        "validated and handed on in their place; 0: none, 0.99 averages about 100 steps.",
        section="Low-bit networks",
    )
    deterministic: bool | None = option(
        None,
        "Equal flags give equal bits, also of a run that was killed; default: on a CPU, since it costs.",
        section="Run",
    )
    checkpoint_every_steps: int = option(
        0, "Steps after which an epoch is saved, again and again; 0: at the ends of epochs alone.", section="Run"
    )

    @property
    def phase_names(self) -> list[str]:
        return [phase.name for phase in self.phases]

    @property
    def phase_labels(self) -> list[str]:
        """What results and messages call the phases: by name; with --phase_bits the second of a name is NAME_2."""
        names = self.phase_names
        if all(phase.bits is None for phase in self.phases):
            return names
        turns = [names[: place + 1].count(name) for place, name in enumerate(names)]
        return [name if turn == 1 else f"{name}_{turn}" for name, turn in zip(names, turns, strict=True)]

    @property
    def bits(self) -> list[tuple[int, int]]:
        """Widths that phases name, in order, each once."""
        return list(dict.fromkeys(phase.bits for phase in self.phases if phase.bits is not None))

    @property
    def distills(self) -> bool:
        """Whether the student learns from the teacher in any phase."""
        return any(name in TEACHER_PHASES for name in self.phase_names)

    @property
    def last_distillation_weight(self) -> float:
        """Where `distillation_weight` ends."""
        return self.distillation_weight if self.distillation_weight_end is None else self.distillation_weight_end

    def shifts_calibrated_statistics(self, pretrained: frozenset[str]) -> bool:
        """Whether a calibrated student takes the statistics of full precision, moved by what quantization moves.

        Args:
          pretrained: names, of "student" and "teacher", that came with weights, and so with statistics.
        """
        asked = self.batch_norm_statistics
        return self.batch_norm_batches != 0 and (asked == "shift" or (asked == "auto" and "student" in pretrained))

    def shifts_trained_statistics(self, pretrained: frozenset[str], num_train: int) -> bool:
        """Whether a student in training does, too: "auto" where it trains on few pictures, and so stays near its start.

        Args:
          num_train: training images.
        """
        by_default = not self.phases or num_train < FEW_PICTURES
        asked = self.batch_norm_statistics == "shift"
        return self.shifts_calibrated_statistics(pretrained) and (asked or by_default)

    def may_keep_start(self, pretrained: frozenset[str], num_train: int) -> bool:
        """Whether a quantized phase may end with the student that it began with, where no epoch validates better.

        Few pictures cannot teach a student that came with weights much, and take from it what they do not show.

        Args:
          num_train: training images.
        """
        return self.keep_epoch == "best" and "student" in pretrained and num_train < FEW_PICTURES

    def __post_init__(self) -> None:
        require_known(self.optimizer, OPTIMIZERS, "--optimizer")
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
        for field in ("weight_decay", "distillation_weight", "label_weight", *ratios):
            require_factor(getattr(self, field), field)
        require_factor(self.last_distillation_weight, "distillation_weight_end")
        require(
            not self.distills or max(self.label_weight, self.distillation_weight, self.last_distillation_weight) > 0,
            f"--label_weight={self.label_weight} and --distillation_weight={self.distillation_weight} leave a student "
            "nothing to learn from where a teacher takes part; one of them has to be positive",
        )
        require_known(self.mixed_precision, PRECISIONS, "--mixed_precision")
        require(
            not self.jit_compile or self.mixed_precision == "float32",
            f"--jit_compile and --mixed_precision={self.mixed_precision} do not go together: "
            "XLA takes the step as it is written; leave one of them out",
        )
        require_count(self.gradient_accumulation_steps, "gradient_accumulation_steps", 1, why="1 runs a batch whole")
        require(
            self.gradient_accumulation_steps == 1 or self.strategy == "default",
            f"--gradient_accumulation_steps={self.gradient_accumulation_steps} and --strategy={self.strategy} do not "
            "go together: several devices have their parts of a batch already; leave one of them out",
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
        require(
            0 <= self.weights_ema < 1,
            f"--weights_ema={self.weights_ema} is not in [0, 1); 0 is no average, 0.99 averages about 100 steps",
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
