"""Files of one operator, where a runtime's own rounding decides: beside ties."""

import numpy as np
import pytest

from qkd_tf.contract.logistic import LOGISTIC_STEPS
from qkd_tf.contract.runtime_arithmetic import LITERT_REFERENCE, TFLM, XNNPACK
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor
from tflite_export.inference.runtimes import absence, infer

PIXELS = np.arange(256, dtype=np.uint8).reshape(1, 1, 1, 256)


def scales_beside_ties() -> list[np.float32]:
    """Scales at which some integer of the input lies beside a tie of the sigmoid's steps."""
    rng, found = np.random.default_rng(0), []
    while len(found) < 60:
        tie, x = rng.integers(1, LOGISTIC_STEPS - 1) + 0.5, int(rng.integers(1, 128))
        scale = np.float32(abs(np.log(tie / (LOGISTIC_STEPS - tie))) / x)
        if 0.005 < scale < 0.3:
            found += [scale, np.nextafter(scale, np.float32(0)), np.nextafter(scale, np.float32(1))]
    return found


@pytest.mark.parametrize(
    "runtime, arithmetic", [("litert", XNNPACK), ("litert_reference", LITERT_REFERENCE), ("tflm", TFLM)]
)
def test_logistic_beside_ties_is_as_predicted(runtime, arithmetic):
    if reason := absence(runtime):
        pytest.skip(reason)
    for scale in scales_beside_ties():
        graph = IntegerGraph(input="x", output="y")
        graph.tensors = {
            "x": Tensor("x", PIXELS.shape, "int8", np.array([scale])),
            "y": Tensor("y", PIXELS.shape, "int8", np.array([1 / LOGISTIC_STEPS], np.float32), -128),
        }
        graph.operators = [Operator("LOGISTIC", ("x",), "y")]
        got, _ = infer(runtime, graph, convert(graph, ""), PIXELS)
        expected = arithmetic.logistic(np.arange(-128, 128), scale) - 128
        np.testing.assert_array_equal(got.ravel(), expected, err_msg=f"scale {scale}")
