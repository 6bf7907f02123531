"""Bytes by hand; tests/tflite_export/flatbuffer/test_convert.py holds them against files."""

import pytest
from tf_keras import layers

from qkd_tf.experiment import QuantizationSpec, TargetSpec
from qkd_tf.quantization.plan import make_plan
from qkd_tf.quantization.stored_bytes import StoredWidths


def widths(model, target, **spec):
    spec = QuantizationSpec(weight_bits=8, activation_bits=8, **spec)
    return StoredWidths(model, make_plan(model, spec), target, spec)


@pytest.mark.parametrize(
    "target, storage, narrower",
    [
        ("phone", "auto", {}),
        ("phone", "int4", {"logits": [4]}),  # Dense, of an even number of inputs
        ("phone", "int4_all", {"stem": [4], "depthwise": [4], "logits": [4]}),
        ("microcontroller", "auto", {"stem": [4], "depthwise": [4], "logits": [4]}),
        ("microcontroller", "int8", {}),
        ("ethos_u", "auto", {}),
    ],
)
def test_widths_worth_trying_are_those_that_take_fewer_bytes_there(make_residual_student, target, storage, narrower):
    found = widths(make_residual_student(), TargetSpec(target, weight_storage=storage))
    assert {layer: tried for layer, tried in found.narrower.items() if tried} == narrower
    assert list(found.widest.values()) == [8, 8, 8, 8] and [found.kernel_bytes("stem", b) for b in (8, 5)] == [112] * 2
    saved = sum({"stem": 48, "depthwise": 16, "logits": 16}[layer] for layer in narrower)  # data are aligned to 16
    assert found.file_bytes - found.fewest_bytes == saved


def test_what_no_rule_packs_is_counted_whole(make_residual_student, chain):
    chip = TargetSpec("microcontroller")
    assert not any(widths(make_residual_student(), chip, narrow_range=False).narrower.values())
    ruled = widths(make_residual_student(), chip, bits_rule=("stem=w6", ".*=a4"))
    assert ruled.narrower["stem"] == [] and ruled.narrower["logits"] == [4]
    model = chain(
        layers.DepthwiseConv2D(3, dilation_rate=2, name="dilated"),
        layers.Conv2D(6, 1, groups=3, name="groups"),
        layers.Flatten(),
        layers.Dense(6, use_bias=False, name="normalized"),
        layers.BatchNormalization(),
        layers.Dense(5, name="even"),
        layers.Dense(4, name="odd"),
    )
    assert widths(model, chip).narrower == {"dilated": [], "groups": [], "normalized": [], "even": [4], "odd": []}
