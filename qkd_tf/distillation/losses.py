"""Losses of QKD: pure functions of logits [N, K]."""

import tensorflow as tf


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy of class indices `labels` [N] under softmax(logits)."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def distillation(target_logits: tf.Tensor, logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """T^2 * KL(softmax(target / T) || softmax(logits / T)), mean over the batch (QKD, co-studying loss).

    No gradient flows into `target_logits`. T^2 keeps the gradient's size independent of T.
    """
    target = tf.nn.log_softmax(tf.stop_gradient(target_logits) / temperature)
    prediction = tf.nn.log_softmax(logits / temperature)
    divergence = tf.reduce_sum(tf.exp(target) * (target - prediction), axis=-1)
    return temperature**2 * tf.reduce_mean(divergence)
