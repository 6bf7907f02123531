"""The model that a run hands back computes what its quantized student does."""

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from qkd_tf.contract.grid import load_params, quantize
from qkd_tf.experiment import QuantizationSpec
from qkd_tf.outcome import handoff
from qkd_tf.outcome.trained_student import trained_student
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.scheme import quantize_student
from qkd_tf.storage import durable
from qkd_tf.storage.run_folder import RunFolder


def averaging(chain, randomize):
    """Averages over the pixels that are there, of pixels and of a tensor with a ReLU6; a sigmoid, a ReLU of its own."""
    return randomize(
        chain(
            layers.Rescaling(1 / 64, -2.0, name="normalization"),
            layers.AveragePooling2D(3, 1, "same", name="mean_of_pixels"),
            layers.Conv2D(4, 3, padding="same", name="conv"),
            layers.ReLU(6.0, name="relu6"),
            layers.AveragePooling2D(3, 2, "same", name="mean"),
            layers.Conv2D(4, 1, name="gate"),
            layers.Activation("sigmoid", name="sigmoid"),
            layers.Flatten(name="flat"),
            layers.Dense(5, name="logits"),
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["residual", "averaging"])
def test_logits_are_those_of_the_handoff_and_outlast_a_file(
    tmp_path, chain, randomize, make_residual_student, make_splits, kind
):
    network = make_residual_student(0) if kind == "residual" else averaging(chain, randomize)
    student, splits = quantize_student(network, QuantizationSpec(weight_bits=3, activation_bits=4)), make_splits()
    calibrate(student, [images for images, _ in splits.calibration], "minmax")
    folder = RunFolder(str(tmp_path / "run"), ["--student=tiny"])
    folder.claim()
    handoff.write(student, splits, folder)
    images, codes = (np.load(folder.handoff / f"{name}.npy") for name in ("test_images", "student_logits"))
    params = load_params(folder.handoff / "tensor_params.json")["logits"]
    model = trained_student(folder.handoff)
    assert np.array_equal(quantize(model.predict_on_batch(images), params), codes)
    float_student = tf_keras.models.load_model(folder.handoff / "student.keras")
    assert not np.array_equal(float_student.predict_on_batch(images), model.predict_on_batch(images))
    model.save(tmp_path / "mine.keras")
    again = tf_keras.models.load_model(tmp_path / "mine.keras")
    assert np.array_equal(again.predict_on_batch(images), model.predict_on_batch(images))


def test_handoff_that_was_changed_is_refused(tmp_path):
    with pytest.raises(durable.DamageError, match="it was never finished"):
        trained_student(tmp_path)
