"""Training on several devices or machines.

Every worker runs the same program on the same batches, of which each replica takes its part. In a training step,
gradients, BatchNormalization's statistics and metrics are summed over all replicas. Everything else (calibration,
evaluation, handoff) runs on one replica and waits for no other.
"""

import contextlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf
import tf_keras

from qkd_tf.distillation.global_batch_norm import GlobalBatchNorm, equal_on_all_replicas
from qkd_tf.experiment import ExperimentError, require


class Distribution:
    """A strategy, and this process's place in it.

    Args:
      strategy: None trains on one device, TensorFlow's default.

    Attributes:
      num_replicas: number of replicas that share each batch.
      is_alone: whether there is only one process.
      is_chief: whether this process writes the run folder.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        self._strategy = strategy
        self.num_replicas = strategy.num_replicas_in_sync if strategy else 1
        self._task = None  # ("worker", 1) of one among several processes
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            self._task = (strategy.cluster_resolver.task_type, strategy.cluster_resolver.task_id)
            has_chief = "chief" in strategy.cluster_resolver.cluster_spec().jobs
        self.is_alone = self._task is None
        self.is_chief = self.is_alone or self._task == ("chief" if has_chief else "worker", 0)

    def require_divides(self, batch_size: int) -> None:
        """Raises ExperimentError if a batch cannot be divided among the replicas."""
        require(
            batch_size % self.num_replicas == 0,
            f"--batch_size={batch_size} cannot be divided among {self.num_replicas} replicas, which share each batch; "
            f"give a multiple of {self.num_replicas}",
        )

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Scope in which to create everything that training changes: each variable gets a copy on every replica."""
        if self._strategy is None:
            yield
        else:
            with self._strategy.scope(), tf.variable_creator_scope(equal_on_all_replicas):
                yield

    def replicated(self, model: tf_keras.Model) -> tf_keras.Model:
        """Prepares a functional model that was created in `scope`.

        Returns:
          The same layers and variables, as a model that Keras runs on one replica except in training.

        Raises:
          ExperimentError: a BatchNormalization over another axis than the last.
        """
        if self._strategy is None:
            return model
        for module in model.submodules:
            if isinstance(module, tf_keras.layers.BatchNormalization):
                require(
                    list(module.axis) == [module.input_spec.ndim - 1],
                    f"{module.name} normalizes axis {module.axis}; on several devices it must be the last axis",
                )
                module.call = GlobalBatchNorm(module, module.call)
        return tf_keras.Model(model.inputs, model.outputs, name=model.name)

    def divide(self, batches: Callable[[tuple[int, int]], tf.data.Dataset]) -> Iterable:
        """Batches for `Distiller.fit`; replica i takes the i-th part of each.

        So a batch's content and augmentation do not depend on the number of replicas. A process asks only for its
        replicas' share, so more machines decode more pictures per second.

        Args:
          batches: share, as in `Splits.train` -> batches of (pixels [N, H, W, C], labels [N]).
        """
        if self._strategy is None:
            return batches((0, 1))

        def local(context: tf.distribute.InputContext) -> tf.data.Dataset:
            """Batches of this process's replicas, one after the other."""
            num_local = self.num_replicas // context.num_input_pipelines

            def rows(tensor: tf.Tensor) -> tf.Tensor:
                parts = tf.reshape(tensor, tf.concat([[num_local, -1], tf.shape(tensor)[1:]], 0))
                num_rows = tensor.shape[0] and tensor.shape[0] // num_local  # a TPU must know it
                return tf.ensure_shape(parts, [num_local, num_rows, *tensor.shape[1:]])

            mine = batches((context.input_pipeline_id, context.num_input_pipelines))
            return mine.map(lambda images, labels: (rows(images), rows(labels))).unbatch()

        return self._strategy.distribute_datasets_from_function(local)

    def require_same(self, state: object, what: str) -> None:
        """Waits for all workers, and checks that they agree on a state.

        Args:
          state: as this worker sees it; its text is compared.
          what: what the state is, for the message.

        Raises:
          ExperimentError: on all workers, if they do not agree.
        """
        if self._strategy is None:
            return
        number = float(zlib.crc32(str(state).encode()) % 2**24)  # whole in float32, which every device can gather
        numbers = self._strategy.gather(self._strategy.run(lambda: tf.constant([number])), axis=0)
        require(
            bool(tf.reduce_all(numbers == number)),
            f"the workers differ in {what}; start all with the same flags and data, and with a --run_dir on a shared "
            "file system or copied from the first worker to all",
        )

    @contextlib.contextmanager
    def naming_lost_workers(self) -> Iterator[None]:
        """Turns the loss of another worker, which ends this one too, into an ExperimentError that names it."""
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            if self.is_alone:
                raise
            cluster = self._strategy.cluster_resolver.cluster_spec()
            named = dict.fromkeys((job, int(index)) for job, index in _TASK.findall(error.message))
            lost = [task for task in named if task != self._task and task[0] in cluster.jobs]
            names = [f"{job} {index} ({cluster.task_address(job, index)})" for job, index in lost]
            raise ExperimentError(
                f"{', '.join(names) or 'another worker'} was lost, so this worker stops; the output of the lost "
                "worker has the reason. Start all workers again with the same commands: they resume from the last "
                "checkpoint"
            ) from error

    def wait(self) -> None:
        """Returns once all workers have called it."""
        self.require_same("", "nothing")


_TASK = re.compile(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)")  # as TensorFlow's errors name one


ONE_DEVICE = Distribution()
