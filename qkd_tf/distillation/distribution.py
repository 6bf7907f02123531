"""Training on several devices or machines: the strategies of tf.distribute, a row each, and what a run asks of them.

Every worker runs the same program on the same batches, of which each replica takes its part. In a training step
gradients, BatchNormalization's statistics and metrics are summed over all of them; whatever stands beside
training (calibration, evaluation, handoff) runs on one replica, with nothing to wait for.
"""

import contextlib
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import tensorflow as tf
import tf_keras

from qkd_tf.experiment import ExperimentError, require
from qkd_tf.process import accelerators
from qkd_tf.storage.archive import first_line


class Distribution:
    """A strategy, and the place that this process has in it.

    Args:
      strategy: None trains on one device, as TensorFlow does by itself.

    Attributes:
      num_replicas: among which a batch is divided.
      is_alone: whether there is one process.
      is_chief: whether this process is the one that writes.
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
        """Raises ExperimentError where a batch cannot be divided among the replicas."""
        require(
            batch_size % self.num_replicas == 0,
            f"--batch_size={batch_size} cannot be divided among {self.num_replicas} replicas; it is the batch of all "
            f"of them together: give a multiple of {self.num_replicas}",
        )

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Where everything is made that training changes: a copy of each variable on every replica."""
        if self._strategy is None:
            yield
        else:
            with self._strategy.scope(), tf.variable_creator_scope(_equal_on_all_replicas):
                yield

    def adopt(self, model: tf_keras.Model) -> tf_keras.Model:
        """Readies a functional model that was made in `scope`.

        Returns:
          The same layers and variables as a model that Keras runs on one replica, but for training.

        Raises:
          ExperimentError: a BatchNormalization over another axis than the last.
        """
        if self._strategy is None:
            return model
        for module in model.submodules:
            if isinstance(module, tf_keras.layers.BatchNormalization):
                require(
                    list(module.axis) == [module.input_spec.ndim - 1],
                    f"{module.name} normalizes axis {module.axis}; of several devices the last axis is expected",
                )
                module.call = _GlobalBatchNorm(module, module.call)
        return tf_keras.Model(model.inputs, model.outputs, name=model.name)

    def divide(self, batches: tf.data.Dataset) -> Iterable:
        """Batches of (pixels [N, H, W, C], labels [N]) for `Distiller.fit`, of which replica i takes the i-th part.

        So what is in a batch, and how it was augmented, does not depend on the number of replicas.
        """
        if self._strategy is None:
            return batches

        def local(context: tf.distribute.InputContext) -> tf.data.Dataset:
            """Batches of this process's replicas, one after the other."""
            num_local = self.num_replicas // context.num_input_pipelines
            first = context.input_pipeline_id * num_local

            def rows(tensor: tf.Tensor) -> tf.Tensor:
                shape = tf.concat([[self.num_replicas, -1], tf.shape(tensor)[1:]], 0)
                parts = tf.reshape(tensor, shape)[first : first + num_local]
                num_rows = tensor.shape[0] and tensor.shape[0] // self.num_replicas  # a TPU must know it
                return tf.ensure_shape(parts, [num_local, num_rows, *tensor.shape[1:]])

            return batches.map(lambda images, labels: (rows(images), rows(labels))).unbatch()

        return self._strategy.distribute_datasets_from_function(local)

    def require_same(self, state: object, what: str) -> None:
        """Waits for all workers.

        Args:
          state: as this worker sees it; its text is compared.
          what: it is, for the message.

        Raises:
          ExperimentError: on all workers where they do not agree.
        """
        if self._strategy is None:
            return
        number = float(zlib.crc32(str(state).encode()) % 2**24)  # whole in float32, which every device can gather
        numbers = self._strategy.gather(self._strategy.run(lambda: tf.constant([number])), axis=0)
        require(
            bool(tf.reduce_all(numbers == number)),
            f"the workers differ in {what}; start all with the same flags and the same data, and a --run_dir on a file "
            "system that they share, or the first worker's copied to all",
        )

    @contextlib.contextmanager
    def losses_named(self) -> Iterator[None]:
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
                f"{', '.join(names) or 'another worker'} was lost, and this one stops; the reason is in the other's "
                "output. Start all workers again with the same commands: they go on where the last checkpoint is"
            ) from error

    def wait(self) -> None:
        """Returns once all workers have called it."""
        self.require_same("", "nothing")


_TASK = re.compile(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)")  # as TensorFlow's errors name one


class _GlobalBatchNorm:
    """What a BatchNormalization does in training: it normalizes by the batch of all replicas.

    As on one device the moving variance of pictures is that of n - 1, where Keras' `synchronized` has n.

    Args:
      layer: its axis is the last one.
      alone: its own call, for inference.
    """

    def __init__(self, layer: tf_keras.layers.BatchNormalization, alone: Callable):
        self._layer, self._alone = layer, alone

    def __call__(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        layer, context = self._layer, tf.distribute.get_replica_context()
        if not training or not layer.trainable:
            return self._alone(inputs, training=training)
        # Replicas take turns at every sum, and a wrapper may have put something else in their place by then.
        gamma, beta = layer.gamma, layer.beta
        axes = list(range(inputs.shape.rank - 1))
        num_values = tf.cast(tf.size(inputs) // inputs.shape[-1] * context.num_replicas_in_sync, inputs.dtype)

        def mean_of(values: tf.Tensor) -> tf.Tensor:
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(values, axes)) / num_values

        mean = mean_of(inputs)
        variance = mean_of(tf.square(inputs - mean))
        unbiased = variance * num_values / (num_values - 1.0) if inputs.shape.rank == 4 else variance
        for average, value in ((layer.moving_mean, mean), (layer.moving_variance, unbiased)):
            average.assign_sub((1.0 - layer.momentum) * (average - value))
        return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, layer.epsilon)


def _equal_on_all_replicas(next_creator: Callable, **kwargs) -> tf.Variable:
    """Keeps moving statistics as weights are kept.

    Keras would have each replica go its own way, and average them whenever they are read, for which all workers
    would have to read at once. `_GlobalBatchNorm` gives every replica the same.
    """
    if kwargs.get("aggregation") == tf.VariableAggregation.MEAN:
        kwargs["aggregation"] = tf.VariableAggregation.NONE
        kwargs["synchronization"] = tf.VariableSynchronization.ON_WRITE
    return next_creator(**kwargs)


def _multi_worker() -> tf.distribute.Strategy:
    require(
        "TF_CONFIG" in os.environ,
        "--strategy=multi_worker needs TF_CONFIG, the addresses of all workers and which of them this is; "
        "use --strategy=mirrored for the devices of one machine",
    )
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        if not resolver.cluster_spec():
            raise ValueError("it names no worker")
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except tf.errors.OpError as error:
        raise ExperimentError(
            f"TF_CONFIG={os.environ['TF_CONFIG']}: this worker did not come up ({first_line(error, 120)}); "
            "give an address of this machine whose port is free"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExperimentError(
            f"TF_CONFIG={os.environ['TF_CONFIG']} is not understood ({first_line(error, 120)}); "
            """give {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}"""
        ) from error


def _tpu() -> tf.distribute.Strategy:
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise ExperimentError(
            f"--strategy=tpu finds no TPU by the name {name} ({first_line(error, 120)}); "
            "start it on a TPU machine, or name one by TPU_NAME"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


STRATEGIES: Mapping[str, Callable[[], tf.distribute.Strategy | None]] = {
    "default": lambda: None,
    "mirrored": tf.distribute.MirroredStrategy,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def start(strategy: str) -> Distribution:
    """Joins the other devices and machines; before anything else that TensorFlow does.

    Args:
      strategy: a key of STRATEGIES.

    Raises:
      ExperimentError: no TPU, or no understandable TF_CONFIG.
    """
    accelerators.grow_memory()
    return Distribution(STRATEGIES[strategy]())


ONE_DEVICE = Distribution()
