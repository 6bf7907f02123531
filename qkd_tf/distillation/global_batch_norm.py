"""BatchNormalization over the batch of all replicas."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras


class GlobalBatchNorm:
    """A BatchNormalization's call in training: it normalizes by the batch of all replicas.

    As on one device the moving variance of pictures is that of n - 1, where Keras' `synchronized` has n. Replicas wait
    for one another once in the layer's forward pass, and once in its gradient.

    Args:
      layer: its axis is the last one.
      alone: the layer's own call, used in inference.
    """

    def __init__(self, layer: tf_keras.layers.BatchNormalization, alone: Callable):
        self._layer, self._alone = layer, alone

    def __call__(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        layer, context = self._layer, tf.distribute.get_replica_context()
        if not training or not layer.trainable:
            return self._alone(inputs, training=training)
        # Replicas take turns at every sum, and a wrapper may have put something else in their place by then.
        gamma, beta = layer.gamma, layer.beta
        axes, num_replicas = list(range(inputs.shape.rank - 1)), context.num_replicas_in_sync
        num_values = tf.cast(tf.size(inputs) // inputs.shape[-1] * num_replicas, inputs.dtype)
        own_mean = tf.reduce_mean(inputs, axes)
        own = tf.stack([own_mean, tf.reduce_mean(tf.square(inputs - own_mean), axes)])
        # Each replica's moments side by side, in one sum: it has its own in its place, and zeros in the others'.
        place = tf.one_hot(context.replica_id_in_sync_group, num_replicas, dtype=inputs.dtype)
        means, variances = tf.unstack(
            context.all_reduce(tf.distribute.ReduceOp.SUM, place[:, tf.newaxis, tf.newaxis] * own), axis=1
        )
        # All have the same number of values; what their means lie apart is a part of the variance.
        mean = tf.reduce_mean(means, 0)
        variance = tf.reduce_mean(variances + tf.square(means - mean), 0)
        unbiased = variance * num_values / (num_values - 1.0) if inputs.shape.rank == 4 else variance
        for average, value in ((layer.moving_mean, mean), (layer.moving_variance, unbiased)):
            average.assign_sub((1.0 - layer.momentum) * (average - value))
        return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, layer.epsilon)


def equal_on_all_replicas(next_creator: Callable, **kwargs) -> tf.Variable:
    """Creates moving statistics as weights are created: equal on all replicas.

    In Keras each replica would keep its own and average them whenever they are read, for which all workers would have
    to read at once. `GlobalBatchNorm` gives every replica the same.
    """
    if kwargs.get("aggregation") == tf.VariableAggregation.MEAN:
        kwargs["aggregation"] = tf.VariableAggregation.NONE
        kwargs["synchronization"] = tf.VariableSynchronization.ON_WRITE
    return next_creator(**kwargs)
