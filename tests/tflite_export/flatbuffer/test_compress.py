"""Lookup tables: each width at its true width, and the integers of the plain file on TFLM."""

import dataclasses

import numpy as np
import pytest
from tf_keras import layers

from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import QuantizationSpec
from tflite_export.flatbuffer.compress import compress, compressible, gain, index_bits
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.graph import constant
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.flatbuffer.weight_storage import store, unpacked
from tflite_export.inference.runtimes import absence, infer
from tflite_export.proof.verification import verify_compressed
from tflite_export.rebuilding.rebuild import rebuild

# Without BatchNorm at odd widths and with it at even ones; `make widths` has the others, but for the 7 bits with
# BatchNorm, whose table takes more than it saves here.
WIDTHS = [(2, True), (3, False), (4, True), (5, False), (6, True), (7, False)] + [
    pytest.param(num_bits, num_bits % 2 == 1, marks=pytest.mark.widths) for num_bits in range(2, 7)
]
needs_tflm = pytest.mark.skipif(absence("tflm") is not None, reason=str(absence("tflm")))


def kernel(codes, axis=None):
    codes = np.asarray(codes, np.int8)
    return constant("kernel", codes, [0.5] * (1 if axis is None else codes.shape[axis]), axis=axis)


@pytest.mark.parametrize("num_bits", range(2, 8))
def test_index_has_the_bits_of_the_training(num_bits):
    qmax = 2 ** (num_bits - 1) - 1
    assert index_bits(kernel(np.arange(-qmax, qmax + 1))) == num_bits


def test_index_has_the_bits_of_the_channel_that_needs_most():
    assert index_bits(kernel([[4, 4, 4], [0, 4, 8]], axis=0)) == 2
    assert index_bits(kernel([[0, 0], [0, 0]])) == 1


def test_gain_is_kernel_less_indices_tables_and_decoder():
    assert gain(kernel(np.tile([-4, 0, 4], 400))) == 1200 - 300 - 3 - 256
    per_channel = kernel(np.tile([-4, 0, 4], (8, 100)), axis=0)
    assert gain(per_channel) == 2400 - 600 - 8 * 3 - 256
    assert gain(kernel(np.arange(-127, 128))) == 0  # 8 bits have no index


def test_gain_of_a_packed_kernel_is_beside_half_a_byte_a_weight():
    packed = dataclasses.replace(kernel(np.tile([-4, 0, 4], 2000)), dtype="int4")
    assert gain(packed) == 3000 - 1500 - 3 - 256
    assert gain(dataclasses.replace(kernel(np.tile([-4, 0, 4], 300)), dtype="int4")) == 0


@needs_tflm
def test_file_has_int4_beside_tables_where_that_is_smaller(chain, randomize, make_handoff):
    """A kernel of 2 bits that is large enough for its tables, and a small one."""
    model = chain(
        layers.Conv2D(32, 3, name="stem"), layers.Conv2D(24, 3, name="large"), layers.Conv2D(16, 1, name="small")
    )
    spec = QuantizationSpec(weight_bits=2, activation_bits=4, last_layer_bits=2)
    handoff = make_handoff(randomize(model), spec)
    packed = store(rebuild(handoff), "auto", TARGETS["microcontroller"])
    assert compressible(packed) == {"large/kernel"}
    mixed, plain = convert(unpacked(packed, {"large/kernel"}), ""), convert(packed, "")
    content, widths = compress(read_back(mixed), mixed)
    wide = convert(unpacked(packed), "")
    assert widths == {"large/kernel": 2}
    assert len(content) < min(len(plain), len(compress(read_back(wide), wide)[0]))
    assert verify_compressed(content, plain, handoff)["passed"]


@pytest.mark.slow
@needs_tflm
@pytest.mark.parametrize("num_bits, batch_norm", WIDTHS)
def test_every_width_runs_as_the_plain_file(chain, randomize, make_handoff, num_bits, batch_norm):
    """Kernels are large enough for tables of every width to pay."""
    norm = [layers.BatchNormalization(name="bn")] if batch_norm else []
    model = chain(
        layers.Conv2D(48, 3, name="stem"),
        layers.Conv2D(8, 3, use_bias=not norm, name="conv"),
        *norm,
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5, name="logits"),
    )
    handoff = make_handoff(randomize(model), QuantizationSpec(weight_bits=num_bits, activation_bits=4))
    plain = convert(rebuild(handoff), "")
    content, widths = compress(read_back(plain), plain)
    assert widths["conv/kernel"] == num_bits
    assert len(content) < len(plain)
    verification = verify_compressed(content, plain, handoff)
    assert verification["passed"] is True and verification["equal_logits"] == 100
    assert verification["file"]["bytes"] == len(content)


@needs_tflm
def test_table_with_another_integer_is_found_out(residual, chain, randomize, make_handoff):
    model = chain(layers.Conv2D(32, 3, name="stem"), layers.Conv2D(16, 3, name="conv"), layers.Conv2D(4, 1))
    handoff = make_handoff(randomize(model), QuantizationSpec(weight_bits=2, activation_bits=4))
    graph = rebuild(handoff)
    plain = convert(graph, "")
    graph.tensors["conv/kernel"].data[0] = -graph.tensors["conv/kernel"].data[0]
    other = convert(graph, "")
    content, widths = compress(read_back(other), other)
    assert widths["conv/kernel"] == 2
    assert verify_compressed(content, plain, handoff)["passed"] is False


@needs_tflm
def test_nothing_to_gain_leaves_the_file_as_it_is(residual):
    assert compress(read_back(residual.content), residual.content) == (residual.content, {})
    assert infer("tflm", residual.graph, residual.content, residual.handoff.test_images[:1])[1]["arena_bytes"] > 0
