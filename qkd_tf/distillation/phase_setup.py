"""The parts of a phase's step: optimizers, their schedules, and what is annealed against oscillation."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import tensorflow as tf
import tf_keras

from qkd_tf.distillation.distiller import Distiller, ParameterGroup
from qkd_tf.distillation.features import FeatureDistillation, Features
from qkd_tf.distillation.learning_rates import CosineDecayFrom
from qkd_tf.distillation.losses import cross_entropy
from qkd_tf.distillation.phases import PHASES
from qkd_tf.distillation.relative_adam import RelativeAdam
from qkd_tf.distillation.weights_average import WeightsAverage
from qkd_tf.experiment import PhaseSpec, TrainingSpec
from qkd_tf.models.classifier import classifier
from qkd_tf.quantization.oscillation import Freezing, cosine, dampening_loss
from qkd_tf.quantization.scheme import QuantizedStudent


@dataclasses.dataclass(frozen=True)
class Networks:
    """What is trained.

    Attributes:
      student: the pair of float and quantized student.
      teacher: float model, or None where no phase needs one.
      pretrained: which of "student" and "teacher" came with weights, so that full_precision leaves them alone.
      at_bits: bit widths that phases name -> the student at these, `student` among them; each has variables of its own.
    """

    student: QuantizedStudent
    teacher: tf_keras.Model | None = None
    pretrained: frozenset[str] = frozenset()
    at_bits: Mapping[tuple[int, int], QuantizedStudent] = dataclasses.field(default_factory=dict)

    def student_in(self, phase: PhaseSpec) -> QuantizedStudent:
        """The student that a phase trains; a float phase trains `student.plain`."""
        return self.student if phase.bits is None else self.at_bits[phase.bits]

    @property
    def students(self) -> dict[str, QuantizedStudent]:
        """All students by their names in checkpoints, so that one bit width is never taken for another."""
        others = {f"student_w{w}a{a}": other for (w, a), other in self.at_bits.items() if other is not self.student}
        return {"student": self.student, **others}


class PhaseSetup:
    """Makes the `Distiller` of each phase.

    Args:
      freezing: None if no weight is to be frozen.
      average: average of the student's `trained_variables`; None for none.
      class_weights: as in `cross_entropy`.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        networks: Networks,
        steps_per_epoch: int,
        freezing: Freezing | None,
        average: WeightsAverage | None = None,
        class_weights: Sequence[float] | None = None,
    ):
        self._spec, self._networks, self._steps_per_epoch = spec, networks, steps_per_epoch
        self._freezing, self._average = freezing, average
        self._label_loss = functools.partial(cross_entropy, smoothing=spec.label_smoothing, class_weights=class_weights)
        self._features = _features(networks) if spec.distills and spec.feature_distillation_weight else None

    def distiller(self, index: int) -> Distiller:
        """Phase `index`'s step, compiled; call this in the scope of the devices that train."""
        spec, student, teacher = self._spec, self._networks.student, None
        pretrained = self._networks.pretrained
        phase_spec = spec.phases[index]
        phase = PHASES[phase_spec.name]
        if phase.teacher != "absent":
            teacher = self._networks.teacher
        steps_before, steps = 0, phase_spec.epochs * self._steps_per_epoch
        if spec.one_cosine and phase.quantized:
            steps_before, steps = self._quantized_steps(index)

        def group(variables, ratio: float = 1.0, optimizer: str = spec.optimizer, bound: float = 0.0) -> ParameterGroup:
            schedule = CosineDecayFrom(phase_spec.learning_rate * ratio, steps, steps_before)
            made = OPTIMIZERS[optimizer](schedule, spec)
            made.build(variables)
            return ParameterGroup(made, variables, bound)

        of_intervals = functools.partial(
            group, optimizer=spec.interval_optimizer or spec.optimizer, bound=spec.interval_max_change
        )

        if phase.quantized:  # nothing but intervals moves in a student whose layers are frozen
            student_groups = [
                group(student.trained_weights),
                of_intervals(student.weight_intervals, spec.weight_interval_lr_ratio),
                of_intervals(student.activation_intervals, spec.activation_interval_lr_ratio),
            ]
            student_groups = [group for group in student_groups if group.variables]
        else:
            student_groups = [] if "student" in pretrained else [group(student.plain.trainable_variables)]
        teacher_groups = []
        if teacher is not None and phase.teacher == "trained" and (phase.distills or "teacher" not in pretrained):
            teacher_groups = [group(teacher.trainable_variables, spec.teacher_lr_ratio if phase.distills else 1.0)]
        options = self._low_bit_options(index, student_groups[0].optimizer) if phase.quantized else {}

        def distillation_weight() -> tf.Tensor | float:
            if spec.distillation_weight_end is None:
                return spec.distillation_weight
            done = steps_before + tf.cast(student_groups[0].optimizer.iterations, tf.float32)
            return cosine(spec.distillation_weight, spec.distillation_weight_end, done / steps)

        distiller = Distiller(
            phase,
            student.model if phase.quantized else student.plain,
            teacher,
            student_groups,
            teacher_groups,
            temperature=spec.temperature,
            distillation_weight=distillation_weight,
            weight_decay=spec.weight_decay,
            label_loss=self._label_loss,
            label_weight=spec.label_weight,
            num_parts=spec.gradient_accumulation_steps,
            scales_loss=spec.mixed_precision == "float16",
            **options,
        )
        distiller.compile(jit_compile=spec.jit_compile or None, steps_per_execution=spec.steps_per_execution)
        return distiller

    def _low_bit_options(self, index: int, optimizer: tf_keras.optimizers.Optimizer) -> dict:
        """The distiller's options for features, averaging, and dampening and freezing by the share of steps done.

        Args:
          optimizer: that of phase `index`; in a resumed run its step count comes from the checkpoint.
        """
        spec, weights = self._spec, self._networks.student.weights
        averaged = self._networks.student.trained_variables
        steps_before, steps = self._quantized_steps(index)

        def annealed(start: float, end: float) -> tf.Tensor:
            return cosine(start, end, (steps_before + tf.cast(optimizer.iterations, tf.float32)) / steps)

        def of_dampening() -> tf.Tensor:
            losses = [dampening_loss(w.values(), w.interval, w.grid) for w in weights.values()]
            return annealed(0.0, spec.dampening) * tf.add_n(losses)

        def of_features() -> tf.Tensor:
            return spec.feature_distillation_weight * self._features.loss()

        penalties = [of_dampening] if spec.dampening else []
        penalties += [of_features] if self._features and PHASES[spec.phases[index].name].distills else []

        def after_step() -> None:
            if self._freezing:
                self._freezing.update(weights, annealed(spec.freeze_threshold_start, spec.freeze_threshold_end))
            if self._average:
                self._average.update(averaged, optimizer.iterations)

        return {
            "student_penalty": (lambda: tf.add_n([penalty() for penalty in penalties])) if penalties else None,
            "after_student_step": after_step if self._freezing or self._average else None,
        }

    def _quantized_steps(self, index: int) -> tuple[int, int]:
        """Steps of the quantized phases before phase `index`, and of all quantized phases."""
        epochs = [phase.epochs if PHASES[phase.name].quantized else 0 for phase in self._spec.phases]
        return sum(epochs[:index]) * self._steps_per_epoch, sum(epochs) * self._steps_per_epoch


def _features(networks: Networks) -> FeatureDistillation:
    layer, quantized = networks.student.features
    of_teacher = Features(classifier(networks.teacher))
    return FeatureDistillation(Features(layer), of_teacher, quantized.grid, quantized.interval)


OPTIMIZERS = {
    "sgd": lambda schedule, spec: tf_keras.optimizers.SGD(schedule, momentum=spec.momentum),
    "adam": lambda schedule, spec: tf_keras.optimizers.Adam(schedule),
    "relative_adam": lambda schedule, spec: RelativeAdam(schedule),
}
