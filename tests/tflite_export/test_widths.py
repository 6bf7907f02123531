"""Every bit width: what a student of W by A bits is, the file is, on every runtime."""

import itertools

import numpy as np
import pytest

from qkd_tf.experiment import QuantizationSpec
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.inference.runtimes import RUNTIMES, absence, every_tensor
from tflite_export.proof.asking import arithmetic_of
from tflite_export.rebuilding.rebuild import rebuild

WIDTHS = range(2, 9)


def is_sampled(weight_bits, activation_bits):
    """Of `make test`: some equal widths, and the farthest; `make widths` has all 49 pairs."""
    return weight_bits == activation_bits in (2, 3, 4, 8) or {weight_bits, activation_bits} == {2, 8}


PAIRS = [
    pytest.param(*pair, marks=() if is_sampled(*pair) else pytest.mark.widths)
    for pair in itertools.product(WIDTHS, WIDTHS)
]


@pytest.mark.slow
@pytest.mark.parametrize("weight_bits, activation_bits", PAIRS)
def test_integers_of_every_tensor_are_on_their_grid_and_as_keras_predicts(
    everything, make_handoff, contents, weight_bits, activation_bits
):
    spec = QuantizationSpec(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        first_layer_bits=weight_bits,
        last_layer_bits=weight_bits,
    )
    handoff = make_handoff(everything, spec)
    graph = rebuild(handoff)
    assert read_back(convert(graph, "")).operators == graph.operators

    assert {params.grid.num_bits for params in handoff.weight_params.values()} == {weight_bits}
    assert {handoff.tensor_params[name].grid.qmin < 0 for name in ("signed", "unsigned")} == {True, False}
    for name, params in handoff.weight_params.items():
        unit = 2**params.grid.weight_shift
        codes = graph.tensors[f"{name}/kernel"].data.astype(int)
        assert not np.any(codes % unit)
        assert params.grid.qmin <= codes.min() // unit and codes.max() // unit <= params.grid.qmax

    for runtime in (name for name in RUNTIMES if absence(name) is None):
        files = contents(graph, runtime)
        packed = 0 if weight_bits > 4 else 1 if runtime == "tflm" else 2  # phones have two ways to store INT4
        assert len(files) == 1 + packed
        for found in map(read_back, files):
            predicted = handoff.integer_codes[arithmetic_of(runtime, found)]
            images = handoff.test_images[: len(predicted["logits"])]
            for name, codes in every_tensor(runtime, found, convert(found, ""), images).items():
                if name in predicted:
                    np.testing.assert_array_equal(codes, predicted[name], f"{runtime}: {name}")
                if params := handoff.tensor_params.get(name):
                    assert params.stored_min <= codes.min() and codes.max() <= params.stored_max
