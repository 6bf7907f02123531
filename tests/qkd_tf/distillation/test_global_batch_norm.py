"""A layer that normalizes by the batch of all replicas, with the replicas one after the other in this process."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from qkd_tf.distillation.global_batch_norm import GlobalBatchNorm

NUM_REPLICAS = 3


class Replica:
    """What `tf.distribute` shows a replica of NUM_REPLICAS; what all of them bring to a sum is in `brought`."""

    num_replicas_in_sync = NUM_REPLICAS

    def __init__(self, number, brought, is_known):
        self.replica_id_in_sync_group = number
        self._brought, self._is_known = brought, is_known
        self.num_sums = 0

    def all_reduce(self, operation, value):
        assert operation == tf.distribute.ReduceOp.SUM
        self.num_sums += 1
        if not self._is_known:
            self._brought.append(value)
        return tf.add_n(self._brought) if self._is_known else value


@pytest.mark.parametrize("shape", [(5, 4, 3, 6), (5, 6)])
def test_one_sum_a_layer_gives_the_statistics_of_the_whole_batch(monkeypatch, shape):
    rng = np.random.default_rng(0)
    # Far from 0, and each replica elsewhere: a variance by squares alone would have nothing left of its digits.
    parts = [(1_000 + 10 * r + rng.normal(0, 1, shape)).astype(np.float32) for r in range(NUM_REPLICAS)]

    def made():
        layer = tf_keras.layers.BatchNormalization(momentum=0.5)
        layer.build((None, *shape[1:]))
        layer.gamma.assign(np.arange(1.0, 7.0))
        return layer

    whole, brought, outputs, layers = made(), [], [], []
    expected = whole(np.concatenate(parts), training=True).numpy()
    for is_known in (False, True):
        for number, part in enumerate(parts):
            layer, replica = made(), Replica(number, brought, is_known)
            monkeypatch.setattr(tf.distribute, "get_replica_context", lambda replica=replica: replica)
            output = GlobalBatchNorm(layer, layer.call)(tf.constant(part), training=True)
            assert replica.num_sums == 1
            if is_known:
                outputs.append(output.numpy())
                layers.append(layer)
    np.testing.assert_allclose(np.concatenate(outputs), expected, atol=2e-3)
    for layer in layers:
        np.testing.assert_allclose(layer.moving_mean, whole.moving_mean, rtol=1e-6)
        np.testing.assert_allclose(layer.moving_variance, whole.moving_variance, rtol=1e-3)


def test_inference_waits_for_nobody(monkeypatch):
    layer = tf_keras.layers.BatchNormalization()
    layer.build((None, 2))
    replica = Replica(0, [], False)
    monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: replica)
    pixels = tf.constant([[1.0, 2.0]])
    np.testing.assert_array_equal(GlobalBatchNorm(layer, layer.call)(pixels, training=False), layer.call(pixels))
    assert replica.num_sums == 0
