"""The training step, as the phase's row says."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf
import tf_keras

from qkd_tf.distillation.losses import cross_entropy, distillation
from qkd_tf.distillation.mixed_precision import LossScale
from qkd_tf.distillation.phases import Phase

# AutoGraph looks at every function, which makes tracing slower. Only a teacher, which may have the user's own layers,
# may use Python's `if` and `while` on tensors.
without_autograph = tf.autograph.experimental.do_not_convert


@dataclasses.dataclass(frozen=True)
class ParameterGroup:
    """Variables that one optimizer updates.

    Attributes:
      max_change: largest change of a variable in one step, as a share of it; larger changes are clipped. 0: no bound.
    """

    optimizer: tf_keras.optimizers.Optimizer
    variables: list[tf.Variable]
    max_change: float = 0.0


class Distiller(tf_keras.Model):
    """A student, a teacher if the phase has one, and the step that trains them.

    Args:
      phase: the row to obey.
      student, teacher: models from pixels [N, H, W, C] to logits [N, K]. `teacher` is None where it
        takes no part.
      student_groups, teacher_groups: which optimizer updates which variables. An empty list trains nothing.
      temperature: T of the softened distributions.
      distillation_weight: () -> factor of both networks' distillation loss at the current step.
      weight_decay: factor of 0.5 * |w|^2 for the kernels of a trained network.
      label_loss: labels [N], logits [N, K] -> what a network learns from labels, a scalar.
      label_weight: factor of `label_loss` in the student's loss, in a phase that distills. The teacher's loss has no
        such factor: two networks that learn only from each other could agree on anything.
      num_parts: number of equal parts in which a step runs its batch, one after the other; their gradients are
        averaged. A step takes the memory of one part, and BatchNormalization sees the statistics of one part.
      scales_loss: whether each network has a `LossScale`, as float16 needs.
      student_penalty: scalar to add to the student's loss, as weight decay is.
      after_student_step: called after each update of the student by its optimizers.
    """

    def __init__(
        self,
        phase: Phase,
        student: tf_keras.Model,
        teacher: tf_keras.Model | None,
        student_groups: list[ParameterGroup],
        teacher_groups: list[ParameterGroup],
        temperature: float,
        distillation_weight: Callable[[], tf.Tensor | float],
        weight_decay: float,
        label_loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = cross_entropy,
        label_weight: float = 1.0,
        num_parts: int = 1,
        scales_loss: bool = False,
        student_penalty: Callable[[], tf.Tensor] | None = None,
        after_student_step: Callable[[], None] | None = None,
    ):
        super().__init__()
        self.distribute_reduction_method = "first"  # metrics are those of all replicas already, on each of them
        self.phase = phase
        self.student, self.teacher = student, teacher
        self.student_groups, self.teacher_groups = student_groups, teacher_groups
        self._temperature = temperature
        self._distillation_weight = distillation_weight
        self._weight_decay = weight_decay
        self._label_loss, self._label_weight = label_loss, label_weight
        self._num_parts = num_parts
        self.student_loss_scale, self.teacher_loss_scale = (LossScale() if scales_loss else None for _ in range(2))
        self._student_penalty, self._after_student_step = student_penalty, after_student_step
        self.student_metrics = _Metrics("student")
        self.teacher_metrics = _Metrics("teacher")

    @property
    def metrics(self):
        metrics = self.student_metrics.all if self.student_groups else []
        return metrics + (self.teacher_metrics.all if self.teacher_groups else [])

    def train_step(self, data):
        """One batch of (pixels [N, H, W, C], labels [N]), or one replica's equal part of it."""
        gradients = self._gradients(*data) if self._num_parts == 1 else self._average_of_parts(*data)
        _apply(gradients[0], self.student_groups, self.student_loss_scale, self._after_student_step)
        _apply(gradients[1], self.teacher_groups, self.teacher_loss_scale)
        return {metric.name: metric.result() for metric in self.metrics}

    def _gradients(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor | None], list[tf.Tensor | None]]:
        """Gradients of student and teacher, by variable; none for a network that does not train.

        Each network's target is the other's output for the same batch, without gradient, so a batch runs through each
        network once.
        """
        teacher_logits = student_logits = None
        with tf.GradientTape() as student_tape, tf.GradientTape() as teacher_tape:
            if self.teacher is not None:
                teacher_logits = self.teacher(images, training=bool(self.teacher_groups))
            if self.student_groups:
                student_logits = _call(self.student, images)
            student_loss = self._loss(
                labels, student_logits, teacher_logits, self.student_groups, self.student_metrics, self._label_weight
            )
            teacher_loss = self._loss(labels, teacher_logits, student_logits, self.teacher_groups, self.teacher_metrics)
            if student_loss is not None and self._student_penalty is not None:
                student_loss += self._student_penalty()
            student_loss = _share(_scaled(student_loss, self.student_loss_scale))
            teacher_loss = _share(_scaled(teacher_loss, self.teacher_loss_scale))
        return (
            student_tape.gradient(student_loss, _variables(self.student_groups)) if self.student_groups else [],
            teacher_tape.gradient(teacher_loss, _variables(self.teacher_groups)) if self.teacher_groups else [],
        )

    def _average_of_parts(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """`_gradients` averaged over the batch's parts; zeros where a variable has none."""
        number = self._num_parts
        images, labels = (tf.reshape(t, [number, t.shape[0] // number, *t.shape[1:]]) for t in (images, labels))
        groups = (self.student_groups, self.teacher_groups)
        sums = tuple([tf.zeros_like(variable) for variable in _variables(of_network)] for of_network in groups)

        def add(index, sums):
            found = self._gradients(images[index], labels[index])
            pairs = (zip(before, of_part, strict=True) for before, of_part in zip(sums, found, strict=True))
            return index + 1, tuple([a if b is None else a + b / number for a, b in of_network] for of_network in pairs)

        loop = {"parallel_iterations": 1, "maximum_iterations": number}
        return tf.while_loop(lambda index, _: index < number, add, (0, sums), **loop)[1]

    @without_autograph
    def _loss(self, labels, logits, target_logits, groups, metrics, label_weight=1.0) -> tf.Tensor | None:
        """Loss of one network by the phase's row; None if it does not train."""
        if not groups:
            return None
        loss = self._label_loss(labels, logits)
        if self.phase.distills:
            distilled = distillation(target_logits, logits, self._temperature)
            loss = label_weight * loss + self._distillation_weight() * distilled
        metrics.update(loss, labels, logits)
        kernels = [variable for variable in _variables(groups) if variable.shape.rank > 1]
        return loss + self._weight_decay * sum(tf.nn.l2_loss(kernel) for kernel in kernels)


@without_autograph
def _call(student: tf_keras.Model, images: tf.Tensor) -> tf.Tensor:
    return student(images, training=True)


def _variables(groups: list[ParameterGroup]) -> list[tf.Variable]:
    return [variable for group in groups for variable in group.variables]


def _scaled(loss: tf.Tensor | None, loss_scale: LossScale | None) -> tf.Tensor | None:
    return loss if loss is None or loss_scale is None else loss * loss_scale.scale


def _share(loss: tf.Tensor | None) -> tf.Tensor | None:
    """A replica's contribution to the whole batch's loss: gradients are summed over replicas."""
    num_replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    return loss if loss is None or num_replicas == 1 else loss / num_replicas


@without_autograph
def _apply(
    gradients: list[tf.Tensor | None],
    groups: list[ParameterGroup],
    loss_scale: LossScale | None,
    after_step: Callable[[], None] | None = None,
) -> None:
    if not groups:
        return None
    if loss_scale is None:
        return _step(groups, gradients, after_step)
    replica = tf.distribute.get_replica_context()
    gradients, finite = loss_scale.unscale(replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients))

    def step(gradients: list[tf.Tensor]) -> None:
        _step(groups, gradients, after_step, summed=True)

    def step_all(strategy: tf.distribute.Strategy, finite, gradients) -> None:
        """Optimizers synchronize all replicas, which is impossible in a branch that each replica takes by itself."""
        one = strategy.experimental_local_results(finite)[0]
        tf.cond(one, lambda: strategy.extended.call_for_each_replica(step, (gradients,)), lambda: None)

    return replica.merge_call(step_all, (finite, gradients))


def _step(
    groups: list[ParameterGroup],
    gradients: list[tf.Tensor],
    after_step: Callable[[], None] | None = None,
    summed: bool = False,
) -> None:
    """Updates the variables; gradients are those of this replica, unless `summed` over all replicas."""
    remaining = iter(gradients)
    for group in groups:
        pairs = [(next(remaining), v) for v in group.variables]
        before = [tf.identity(v) for v in group.variables] if group.max_change else []
        group.optimizer.apply_gradients(pairs, skip_gradients_aggregation=summed)
        for old, variable in zip(before, group.variables, strict=False):
            bound = group.max_change * tf.abs(old)
            variable.assign(tf.clip_by_value(variable, old - bound, old + bound))
    if after_step is not None:
        after_step()


class _Metrics:
    """Running loss (without weight decay) and top-1 of one network."""

    def __init__(self, network: str):
        self.loss = tf_keras.metrics.Mean(f"{network}_loss")
        self.top1 = tf_keras.metrics.SparseCategoricalAccuracy(f"{network}_top1")
        self.all = [self.loss, self.top1]

    def update(self, loss, labels, logits) -> None:
        self.loss.update_state(loss)
        self.top1.update_state(labels, logits)
