import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from qkd_tf import evaluate
from qkd_tf.evaluate import IntegerTop1, StudentAccuracy, predict_logits, top1


@pytest.fixture
def identity():
    """A model whose logits are its input."""
    inputs = tf_keras.Input((3,))
    return tf_keras.Model(inputs, layers.Activation("linear")(inputs))


def batches(*sizes):
    """Pictures (0, 1, 0), labels all 1 but those of the first batch, which are 2."""
    return [(np.eye(3, dtype=np.float32)[np.full(n, 1)], np.full(n, 1 if i else 2)) for i, n in enumerate(sizes)]


def test_every_image_counts_the_same_however_the_batches_are_cut(identity):
    assert top1(identity, batches(3, 5)) == pytest.approx(100 * 5 / 8)
    assert top1(identity, batches(3, 4, 1)) == pytest.approx(100 * 5 / 8)


def test_top1_is_in_percent(identity):
    assert top1(identity, batches(2)) == 0.0
    assert top1(identity, batches(0, 2)) == 100.0


def test_logits_and_labels_come_in_the_order_of_the_batches(identity):
    images = np.arange(15, dtype=np.float32).reshape(5, 3)
    split = tf.data.Dataset.from_tensor_slices((images, np.arange(5))).batch(2)
    logits, labels = predict_logits(identity, split)
    np.testing.assert_array_equal(logits, images)
    np.testing.assert_array_equal(labels, np.arange(5))


def test_inference_mode_moves_no_batch_statistics(chain, randomize, images):
    model = randomize(chain(layers.BatchNormalization(), layers.Dropout(0.9), layers.Flatten()))
    before = [v.numpy() for v in model.variables]
    first, _ = predict_logits(model, [(images, np.zeros(4))])
    second, _ = predict_logits(model, [(images, np.zeros(4))])
    np.testing.assert_array_equal(first, second)
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


def test_large_tensors_are_computed_for_few_images_at_a_time(chain, images, monkeypatch):
    model = chain(layers.Flatten())
    whole, seen, predict = predict_logits(model, [(images, np.zeros(4))])[0], [], model.predict_on_batch
    monkeypatch.setattr(evaluate, "TENSOR_BYTES", 3 * 4 * whole.shape[1])
    monkeypatch.setattr(model, "predict_on_batch", lambda part: (seen.append(len(part)), predict(part))[1])
    np.testing.assert_array_equal(predict_logits(model, [(images, np.zeros(4))])[0], whole)
    assert seen == [3, 1]


@pytest.mark.parametrize(
    "trained, reals, integers, told",
    [
        (97.5, 96.67, 95.0, ["97.50 % as trained", "96.67 % once biases", "95.00 % with the rounding of tflm"]),
        (None, 96.67, 95.0, ["96.67 % once biases", "95.00 % with the rounding of tflm"]),
        (97.5, 96.67, 96.67, ["97.50 % as trained", "96.67 % once biases", "96.67 % with the rounding of tflm"]),
        (97.5, 97.501, 97.5, []),
        (None, 97.5, 97.5, []),
    ],
)
def test_numbers_of_one_student_are_explained_where_they_differ(trained, reals, integers, told):
    note = StudentAccuracy("tflm", reals, {"tflm": IntegerTop1(integers, 120)}).note(trained)
    assert bool(note) == bool(told)
    assert note.count(" % ") == len(told) and all(part in note for part in told)
