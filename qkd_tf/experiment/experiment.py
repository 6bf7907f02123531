"""Everything that decides the outcome of a run."""

import dataclasses
import itertools
import math
from collections.abc import Iterable

from qkd_tf.console.counting import counted
from qkd_tf.contract.origin import leak
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment.checks import require, require_count
from qkd_tf.experiment.data import FEW_STEPS, DataSpec
from qkd_tf.experiment.network import NetworkSpec, PixelNormalization
from qkd_tf.experiment.option import as_flag
from qkd_tf.experiment.quantization import UNEVEN_CHANNELS, WIDEST_BITS, QuantizationSpec
from qkd_tf.experiment.target import FEW_BITS, ROUNDS_TWICE, TargetSpec
from qkd_tf.experiment.training import FEW_PICTURES, RATIO_OF_FEW, TEACHER_PHASES, TrainingSpec

LEARNING_RATE = 0.01  # QKD
# Flags that only count in phases with a teacher, and their values where they do nothing.
OF_DISTILLATION = {"label_weight": 1.0, "distillation_weight_end": None, "feature_distillation_weight": 0.0}
RATE_OF_FEW = 0.001  # MobileNetV2 at 4 bits lost by higher ones on few pictures (benchmarks/README.md)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that decides the outcome of a run, and the folder it is written to."""

    run_dir: str = dataclasses.field(
        metadata=as_flag(
            None, "Folder of the run, for instance runs/my_run; the same command resumes a run that stopped."
        )
    )
    seed: int = dataclasses.field(metadata=as_flag(0, "Seed of weights, shuffling and augmentation."))
    data: DataSpec
    student: NetworkSpec
    teacher: NetworkSpec | None
    quantization: QuantizationSpec
    training: TrainingSpec
    target: TargetSpec = TargetSpec()

    def __post_init__(self) -> None:
        require(bool(self.run_dir.strip()), "--run_dir is empty; give a folder for the run, such as runs/my_run")
        longest = max(len(part.encode(errors="surrogateescape")) for part in self.run_dir.split("/"))
        require(longest <= 255, f"--run_dir contains a name of {longest} bytes; a name has at most 255")
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
                f"{phase.name} needs a teacher; give one by --teacher, or leave {phase.name} out of --phases",
            )
            num_networks = 1 if self.teacher is None else 2
            require(
                phase.name != "full_precision" or len(self.pretrained) < num_networks,
                "phase full_precision has nothing to train: every network is pretrained; leave it out of --phases, or "
                "the student out of pretrained",
            )
        require(
            not self.training.phases or any(phase.name != "full_precision" for phase in self.training.phases),
            "--phases=full_precision alone trains no quantized student; add self_studying, co_studying or tutoring",
        )
        own = self.quantization.bits
        named = [phase.bits or own for phase in self.training.phases if phase.name != "full_precision"]
        last = named[-1] if named else own
        require(
            last == own,
            f"--phase_bits ends in w{last[0]}a{last[1]}, but the file must have w{own[0]}a{own[1]} (--weight_bits, "
            "--activation_bits); give the last quantized phase these widths",
        )
        require(
            not self.quantization.finds_bits or self.target.max_flash_bytes > 0,
            "--bits=auto needs a budget; give --max_flash_bytes=N, the bytes that the file may have on the target",
        )
        require(
            not self.quantization.finds_bits or all(phase.bits is None for phase in self.training.phases),
            "--bits=auto and --phase_bits cannot be combined: the widths that it finds apply to all phases; leave one "
            "of them out",
        )
        require(
            self.quantization.ewgs_scale == 0 or self.training.mixed_precision == "float32",
            f"--ewgs_scale={self.quantization.ewgs_scale} and --mixed_precision={self.training.mixed_precision} "
            "cannot be combined: activations would be rounded in half precision; leave one of them out",
        )

        untrained = "it removes the mean of each kernel, so the student must be trained before it is used"
        for flag, is_given, reason in (
            ("--phases=", not self.training.phases, untrained),
            ("--bits=auto", self.quantization.finds_bits, untrained),
            (
                "--freeze_threshold_start",
                self.training.freeze_threshold_start > 0,
                "each normalized weight depends on all others, so it cannot be frozen",
            ),
        ):
            require(
                self.quantization.normalize_weights == "off" or not is_given,
                f"--normalize_weights={self.quantization.normalize_weights} and {flag} cannot be combined: {reason}; "
                "leave one of them out",
            )
        num_parts = self.training.gradient_accumulation_steps
        require(
            self.data.batch_size % num_parts == 0,
            f"--gradient_accumulation_steps={num_parts} does not divide --batch_size={self.data.batch_size}; "
            "a batch is run in equal parts",
        )

    def require_measurable(self) -> None:
        """Raises ExperimentError if bit widths are to be found for a student that has not learned anything by then."""
        phases = self.training.phase_names
        require(
            not (self.quantization.finds_bits and self.student.starts_by_chance) or phases[:1] == ["full_precision"],
            "--bits=auto measures what a trained student loses, and this one begins with random weights; give "
            "--student_weights, or put full_precision first in --phases",
        )

    def at_bits(self, found: Iterable[int]) -> "Experiment":
        """The same experiment with the bit widths found for its kernels, in their order."""
        return dataclasses.replace(self, quantization=dataclasses.replace(self.quantization, found_bits=tuple(found)))

    def on_signals(self, scale: float, zero_point: int) -> "Experiment":
        """The same experiment on signals, whose 8 bits mean scale * (step - zero_point), steps and zero point 0..255.

        Raises:
          ExperimentError: a normalisation of pixels was given.
        """
        numbers = PixelNormalization((float(zero_point),), (1.0 / scale,))
        student = self.student.on_signals(numbers, "student")
        teacher = self.teacher and self.teacher.on_signals(numbers, "teacher")
        return dataclasses.replace(self, student=student, teacher=teacher)

    @property
    def notes(self) -> list[str]:
        """Notes on what is allowed but rarely intended, one per line."""
        names = [phase.name for phase in self.training.phases]
        before = names[: names.index("full_precision")] if "full_precision" in names else names
        random: list[tuple[str, NetworkSpec | None, list[str]]] = [
            ("student", self.student, before),
            ("teacher", self.teacher, [name for name in before if name in TEACHER_PHASES]),
        ]
        by_chance = [
            f"note: {phases[0]} starts with a {role} of random weights; give --{role}_weights, "
            "or put full_precision before it in --phases"
            for role, network, phases in random
            if network and phases and network.starts_by_chance
        ]
        training = self.training
        of_distillation = [
            f"note: --{name}={getattr(training, name)} has no effect: no phase of --phases distills"
            for name, without in OF_DISTILLATION.items()
            if getattr(training, name) != without and not training.distills
        ]
        return by_chance + of_distillation

    def on_images(self, num_train: int, num_replicas: int = 1) -> "Experiment":
        """The same experiment, with what was not given chosen for its student and `num_train` training images.

        These are batch size, learning rates, and crop_padding: a model of the user's own that comes trained has not
        seen pictures with black borders.
        """
        training = self.training
        phases, ratio = training.phases, training.teacher_lr_ratio
        if self._has_few("student", num_train):
            phases = tuple(
                dataclasses.replace(phase, learning_rate=RATE_OF_FEW)
                if phase.rate_is_default and phase.name != "full_precision"  # which trains what is not pretrained
                else phase
                for phase in phases
            )
        if self._has_few("teacher", num_train) and training.teacher_ratio_is_default:
            ratio = RATIO_OF_FEW
        training = dataclasses.replace(training, phases=phases, teacher_lr_ratio=ratio)
        data = self.data.on_images(num_train, math.lcm(training.gradient_accumulation_steps, num_replicas))
        if data.crop_padding is None and self.student.is_own and "student" in self.with_weights:
            data = dataclasses.replace(data, crop_padding=0)
        return dataclasses.replace(self, training=training, data=data)

    def for_student(self, augments: bool) -> "Experiment":
        """The same experiment for a student that has augmentation layers of its own, or has none."""
        return dataclasses.replace(self, data=self.data.beside_layers()) if augments else self

    def notes_on(self, num_train: int) -> list[str]:
        """Notes on what is rarely intended with so many training images, one per line."""
        of_training = self.data.notes if self.training.phases else ()
        return [
            *self._notes_on_bits(),
            *of_training,
            *self._notes_on_test(),
            *self._notes_on_steps(num_train),
            *self._notes_on_rates(num_train),
            *self._notes_on_teacher(num_train),
        ]

    def _notes_on_bits(self) -> list[str]:
        """A note on activations of few bits where they save no bytes and cost more than on a phone."""
        chosen, target = self.quantization, self.target.target
        if not TARGETS[target].rounds_twice or chosen.activation_bits > FEW_BITS:
            return []
        better = chosen.flag_of((chosen.weight_bits, WIDEST_BITS))
        return [
            f"note: --target={target}: {ROUNDS_TWICE}; give {better}, which usually loses less accuracy and takes no "
            "more bytes"
        ]

    def _notes_on_test(self) -> list[str]:
        networks = [(network.name, network.weights) for network in (self.student, self.teacher) if network is not None]
        found = leak(self.data.name, self.data.test_fraction, networks)
        return [f"note: {found}"] if found else []

    def _notes_on_steps(self, num_train: int) -> list[str]:
        size = self.data.batch_size
        steps, fitting = num_train // size, self.data.fitting_batch(num_train)
        if self.data.reading_batch and self.training.phases:
            return [
                f"note: {num_train:,} training images are few for batches of {self.data.reading_batch}: "
                f"--batch_size is {size} unless it is given, so that an epoch has {counted(steps, 'step')}"
            ]
        if not self.training.phases or self.data.max_steps or steps >= FEW_STEPS or fitting >= size:
            return []
        return [
            f"note: an epoch has only {counted(steps, 'step')}, of {size} images: with --batch_size={fitting} it would "
            f"have {num_train // fitting}, and the student would learn more in the same number of epochs"
        ]

    def _notes_on_rates(self, num_train: int) -> list[str]:
        """Notes on a student with pretrained weights that trains on few images."""
        if not self.training.phases or not self._has_few("student", num_train):
            return []
        about = f"note: {num_train:,} training images are few for a student with pretrained weights: "
        settled = [phase for phase in self.training.phases if phase.rate_is_default]
        if any(phase.learning_rate == RATE_OF_FEW for phase in settled):
            return [f"{about}its learning rate is {RATE_OF_FEW:g} unless --learning_rates is given"]
        fastest = max(phase.learning_rate for phase in self.training.phases if phase.name != "full_precision")
        if fastest <= RATE_OF_FEW:
            return []
        return [f"{about}if accuracy falls in training, lower --learning_rates={fastest:g} to {RATE_OF_FEW:g}"]

    def _notes_on_teacher(self, num_train: int) -> list[str]:
        """Notes on a teacher that no phase uses, and on one with pretrained weights that trains on few images."""
        training = self.training
        if self.teacher and training.phases and {"full_precision", *TEACHER_PHASES}.isdisjoint(training.phase_names):
            return [
                f"note: no phase of {', '.join(training.phase_names)} uses the teacher; add "
                f"{' or '.join(TEACHER_PHASES)} to --phases, or leave --teacher out"
            ]
        if "co_studying" not in training.phase_names or not self._has_few("teacher", num_train):
            return []
        if not training.teacher_ratio_is_default:
            return []
        return [
            f"note: {num_train:,} training images are few for a teacher with pretrained weights: in co_studying its "
            f"learning rate is {RATIO_OF_FEW:g} times the student's unless --teacher_lr_ratio is given"
        ]

    def _has_few(self, role: str, num_train: int) -> bool:
        """Whether the images are few for a pretrained "student" or "teacher"."""
        return role in self.pretrained and num_train < FEW_PICTURES

    @property
    def equalized_spread(self) -> float | None:
        """If in some kernel the largest channel is more than this many times the median one, all kernels are equalized.

        None: they never are.
        """
        asked = self.quantization.equalize_channels
        if asked == "auto":
            return UNEVEN_CHANNELS if self.training.phases else 1.0
        return {"on": 1.0, "off": None}[asked]

    @property
    def full_precision_origin(self) -> str:
        """Where the weights of the float student come from.

        "trained": in this run; "weights": came with it; "builder": may have set some; or "random".
        """
        if "student" in self.pretrained:
            return "weights"
        if any(phase.name == "full_precision" for phase in self.training.phases):
            return "trained"
        return "builder" if self.student.is_builder else "random"

    @property
    def teacher_begins(self) -> bool:
        """Whether the teacher teaches with the weights with which it came, before any phase full_precision."""
        before = list(itertools.takewhile(lambda name: name != "full_precision", self.training.phase_names))
        trained_here = len(before) < len(self.training.phases) and not (self.teacher and self.teacher.has_weights)
        return self.teacher is not None and any(
            name in TEACHER_PHASES for name in (before if trained_here else self.training.phase_names)
        )

    @property
    def unnamed_weights(self) -> frozenset[str]:
        """Which of "student" and "teacher" begin with random weights, which another run may draw differently."""
        networks = {"student": self.student, "teacher": self.teacher}
        return frozenset(
            name for name, network in networks.items() if network and network.is_in_memory and not network.has_weights
        )

    @property
    def with_weights(self) -> frozenset[str]:
        """Which of "student" and "teacher" came with weights."""
        networks = {"student": self.student, "teacher": self.teacher}
        return frozenset(name for name, network in networks.items() if network and network.has_weights)

    @property
    def continues_in_float(self) -> bool:
        """Whether a phase full_precision trains the student further, from the weights with which it came.

        A saved model comes with weights, trained or not. A student with weights from an earlier training leaves the
        phase to a teacher without weights.
        """
        if "full_precision" not in self.training.phase_names or not self.student.has_weights:
            return False
        is_alone = self.teacher is None or self.teacher.has_weights
        return not self.student.is_trained_in_memory and (self.student.is_its_own_file or is_alone)

    @property
    def pretrained(self) -> frozenset[str]:
        """Which of "student" and "teacher" came with weights that full_precision leaves as they are."""
        return self.with_weights - {"student"} if self.continues_in_float else self.with_weights
