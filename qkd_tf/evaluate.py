"""Logits and top-1 of a Keras model on a split."""

from collections.abc import Iterable

import numpy as np
import tf_keras


def predict_logits(model: tf_keras.Model, batches: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """Runs `model` in inference mode over batches of (pixels, labels).

    Returns:
      (logits [N, K], labels [N]).
    """
    logits, labels = [], []
    for images, batch_labels in batches:
        logits.append(model.predict_on_batch(images))
        labels.append(np.asarray(batch_labels))
    return np.concatenate(logits), np.concatenate(labels)


def top1(model: tf_keras.Model, batches: Iterable) -> float:
    """Share of images, in percent, whose greatest logit is that of the label."""
    logits, labels = predict_logits(model, batches)
    return 100.0 * float(np.mean(np.argmax(logits, axis=-1) == labels))
