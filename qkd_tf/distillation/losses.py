"""Losses of QKD: pure functions of logits [N, K], and of features [N, F]."""

from collections.abc import Sequence

import tensorflow as tf


def cross_entropy(
    labels: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> tf.Tensor:
    """Mean cross-entropy of class indices `labels` [N] under softmax(logits).

    Args:
      smoothing: e of the target (1 - e) * one-hot + e / K (Szegedy et al. 2016, arXiv 1512.00567), in [0, 1).
      class_weights: factor of an example's loss by its label, [K]; the sum is divided by N all the same, as Keras does.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if smoothing:
        of_any_class = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
        losses = (1 - smoothing) * losses + smoothing * of_any_class
    if class_weights is not None:
        losses *= tf.gather(tf.constant(class_weights, losses.dtype), labels)
    return tf.reduce_mean(losses)


def distillation(target_logits: tf.Tensor, logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """T^2 * KL(softmax(target / T) || softmax(logits / T)), mean over the batch (QKD, co-studying loss).

    No gradient flows into `target_logits`. T^2 keeps the gradient's size independent of T.
    """
    target = tf.nn.log_softmax(tf.stop_gradient(target_logits) / temperature)
    prediction = tf.nn.log_softmax(logits / temperature)
    divergence = tf.reduce_sum(tf.exp(target) * (target - prediction), axis=-1)
    return temperature**2 * tf.reduce_mean(divergence)


def feature_distillation(target: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Mean square of the difference between `target` and `features` [N, F]; no gradient flows into `target`."""
    return tf.reduce_mean(tf.square(tf.cast(features, tf.float32) - tf.stop_gradient(target)))
