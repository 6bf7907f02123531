import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from qkd_tf.contract.grid import quantize
from qkd_tf.distillation.summaries import Summaries
from qkd_tf.experiment import PixelNormalization, QuantizationSpec
from qkd_tf.models.convnet import build_convnet
from qkd_tf.quantization.scheme import quantize_student


@pytest.fixture(scope="module")
def student():
    tf_keras.utils.set_random_seed(0)
    plain = build_convnet((8, 8, 1), 3, PixelNormalization((0.0,), (255.0,)), widths=(4, 4), name="net")
    return quantize_student(plain, QuantizationSpec(weight_bits=3, activation_bits=3))


def events(folder):
    """(tag, step) -> value as an array, of every summary in a folder."""
    found = {}
    for path in folder.glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                found[value.tag, event.step] = tf.make_ndarray(value.tensor)
    return found


def test_scalars_are_by_phase_and_a_float_phase_has_no_quantizers(tmp_path):
    summaries = Summaries(tmp_path)
    summaries.write("full_precision", {"student_loss": 0.5, "validation_top1": 90.0}, None, 3)
    summaries.close()
    assert events(tmp_path) == {("full_precision/student_loss", 3): 0.5, ("full_precision/validation_top1", 3): 90.0}


def test_every_layer_has_its_interval_and_the_histogram_of_its_integers(tmp_path, student):
    summaries = Summaries(tmp_path)
    summaries.write("self_studying", {}, student, 1)
    summaries.close()
    found = {tag: value for (tag, step), value in events(tmp_path).items() if step == 1}
    intervals = {f"{tensor}_interval/{layer}": interval for layer, tensor, _, interval in student.coverage()[1:]}
    assert {tag: found[tag] for tag in intervals} == pytest.approx(intervals)
    assert found.keys() - intervals.keys() == {
        *(f"weight_codes/{layer}" for layer in student.weights),
        "weight_intervals",
        "activation_intervals",
    }
    inner = next(name for name, weights in student.weights.items() if weights.grid.num_bits == 3)
    weights = student.weights[inner]
    codes = quantize(weights.kernel.numpy(), weights.params())
    histogram = found[f"weight_codes/{inner}"]  # rows of left edge, right edge, count
    np.testing.assert_array_equal(histogram[:, 2], np.histogram(codes, len(histogram))[0])
    assert histogram[:, 2].sum() == codes.size and len(histogram) == 7
