import dataclasses
import functools
import inspect
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers
from tf_keras.initializers import Constant

from qkd_tf.contract.grid import IntegerGrid
from qkd_tf.experiment import ExperimentError, NetworkSpec, PixelNormalization, QuantizationSpec
from qkd_tf.models import zoo
from qkd_tf.models.activations import activation_name
from qkd_tf.models.resnet import build_resnet
from qkd_tf.quantization.calibration import mse_interval
from qkd_tf.quantization.plan import make_plan, pixel_params
from qkd_tf.quantization.refusals import problems
from qkd_tf.quantization.roles import parents, role

NORMALIZATION = PixelNormalization((128.0,), (64.0,))
# Every width differs, so that no two can be mixed up unnoticed.
SPEC = QuantizationSpec(weight_bits=3, activation_bits=4, first_layer_bits=7, last_layer_bits=6, residual_bits=5)


def signed(bits):
    return IntegerGrid(bits, -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)


def unsigned(bits):
    return IntegerGrid(bits, 0, 2**bits - 1)


PIXELS = IntegerGrid(8, -128, 127)
INT8 = IntegerGrid(8, -128, 127)


def build(name, size=16):
    return zoo.build(NetworkSpec(name, NORMALIZATION), (size, size, 3), 10)


def branches(make_outputs, input_shape=(8, 8, 3)):
    """Model of the tensor that make_outputs makes of the pixels."""
    inputs = tf_keras.Input(input_shape, name="pixels")
    return tf_keras.Model(inputs, make_outputs(inputs))


def conv(name, filters=4, size=1, **options):
    return layers.Conv2D(filters, size, name=name, **options)


def dense(name="logits", **options):
    return layers.Dense(5, name=name, **options)


def test_plan_of_resnet8_is_the_table_written_by_hand():
    plan = make_plan(build("resnet8"), SPEC)
    assert plan.weight_grids == {
        "stem_conv": signed(7),
        "stage1_block1_conv1": signed(3),
        "stage1_block1_conv2": signed(3),
        "stage2_block1_conv1": signed(3),
        "stage2_block1_conv2": signed(3),
        "stage2_block1_projection": signed(3),
        "stage3_block1_conv1": signed(3),
        "stage3_block1_conv2": signed(3),
        "stage3_block1_projection": signed(3),
        "logits": signed(6),
    }
    assert plan.output_grids == {
        "normalization": PIXELS,
        "normalization_requantize": signed(7),  # the stem reads 7 bits of the 8 of a pixel
        "stem_relu": unsigned(5),  # read by an addition
        "stem_relu_requantize": unsigned(4),  # read by stage 1's first convolution
        "stage1_block1_relu1": unsigned(4),
        "stage1_block1_bn2": signed(5),
        "stage1_block1_relu2": unsigned(4),  # read by conv1 and projection alone
        "stage2_block1_relu1": unsigned(4),
        "stage2_block1_bn2": signed(5),
        "stage2_block1_projection": signed(5),
        "stage2_block1_relu2": unsigned(4),
        "stage3_block1_relu1": unsigned(4),
        "stage3_block1_bn2": signed(5),
        "stage3_block1_projection": signed(5),
        "stage3_block1_relu2": unsigned(5),  # read by the average
        "pool": unsigned(6),  # read by the last layer
        "logits": INT8,
    }
    assert plan.requantized == {
        ("normalization", "stem_conv"): "normalization_requantize",
        ("stem_relu", "stage1_block1_conv1"): "stem_relu_requantize",
    }


def test_default_widths_put_eight_bits_at_both_ends_and_on_residuals():
    plan = make_plan(build("resnet8"), QuantizationSpec())
    assert {name: grid.num_bits for name, grid in plan.weight_grids.items() if grid.num_bits != 4} == {
        "stem_conv": 8,
        "logits": 8,
    }
    assert {name for name, grid in plan.output_grids.items() if grid.num_bits == 4} == {
        "stem_relu_requantize",
        *(f"stage{s}_block1_relu1" for s in (1, 2, 3)),
        *(f"stage{s}_block1_relu2" for s in (1, 2)),
    }
    assert {grid.num_bits for grid in plan.output_grids.values()} == {4, 8}
    assert set(plan.requantized.values()) == {"stem_relu_requantize"}


def test_pad_shortcut_keeps_the_grid_of_its_producer_and_the_padded_convolution_reads_requantized():
    model = build_resnet((16, 16, 3), 10, NORMALIZATION, name="pad", blocks_per_stage=1, block="pad")
    plan = make_plan(model, SPEC)
    assert plan.requantized == {
        ("normalization", "stem_conv"): "normalization_requantize",
        ("stem_relu", "stage1_block1_conv1"): "stem_relu_requantize",
        ("stage1_block1_relu2", "stage2_block1_pad"): "stage1_block1_relu2_requantize",
        ("stage2_block1_relu2", "stage3_block1_pad"): "stage2_block1_relu2_requantize",
    }
    assert plan.output_grids["stage1_block1_relu2"] == unsigned(5)
    assert plan.output_grids["stage1_block1_relu2_requantize"] == unsigned(4)
    assert not [name for name in plan.output_grids if "subsample" in name or "pad" in name]


def test_one_requantize_layer_serves_convolution_and_projection():
    def two_readers_and_an_addition(x):
        x = layers.ReLU(name="relu")(conv("stem")(x))
        y = layers.Add(name="branches")([conv("main")(x), conv("projection")(x)])
        return dense()(layers.Flatten()(layers.Add(name="add")([x, y])))

    plan = make_plan(branches(two_readers_and_an_addition), SPEC)
    assert plan.requantized[("relu", "main")] == plan.requantized[("relu", "projection")] == "relu_requantize"
    assert ("relu", "add") not in plan.requantized
    assert plan.output_grids["relu"] == unsigned(5)
    assert plan.output_grids["relu_requantize"] == unsigned(4)


@pytest.mark.parametrize("activation_bits", [5, 6])
def test_no_requantize_layer_where_the_residual_is_not_wider(activation_bits):
    spec = QuantizationSpec(activation_bits=activation_bits, residual_bits=5, first_layer_bits=8)
    plan = make_plan(build("resnet8"), spec)
    assert plan.requantized == {}
    assert plan.output_grids["stem_relu"] == unsigned(5)
    assert plan.output_grids["stage1_block1_relu1"] == unsigned(activation_bits)


def test_residual_bits_reach_inputs_and_outputs_of_additions_alone():
    narrow, wide = (make_plan(build("resnet8"), QuantizationSpec(residual_bits=b)) for b in (6, 8))
    changed = {name for name in narrow.output_grids if narrow.output_grids[name] != wide.output_grids[name]}
    assert changed == {
        "stem_relu",
        "stage1_block1_bn2",
        "stage2_block1_bn2",
        "stage2_block1_projection",
        "stage3_block1_bn2",
        "stage3_block1_projection",
        "stage3_block1_relu2",
    }
    assert narrow.weight_grids == wide.weight_grids


def test_first_and_last_layer_have_widths_of_their_own(chain):
    plan = make_plan(chain(conv("a"), conv("b"), conv("c"), layers.Flatten(), dense()), SPEC)
    assert {name: grid.num_bits for name, grid in plan.weight_grids.items()} == {"a": 7, "b": 3, "c": 3, "logits": 6}
    # a tensor has the width of the layer that reads it; logits have 8 bits
    assert {name: grid.num_bits for name, grid in plan.output_grids.items()} == {
        "pixels": 8,
        "pixels_requantize": 7,
        "a": 4,
        "b": 4,
        "c": 6,
        "logits": 8,
    }


def test_every_reader_of_the_pixels_is_a_first_layer():
    plan = make_plan(branches(lambda x: dense()(layers.Flatten()(layers.Add()([conv("a")(x), conv("b")(x)])))), SPEC)
    assert plan.weight_grids["a"] == plan.weight_grids["b"] == signed(7)


def test_only_layer_is_the_last_one(chain):
    plan = make_plan(chain(layers.Flatten(name="flat"), dense()), SPEC)
    assert plan.weight_grids == {"logits": signed(6)}
    assert plan.output_grids["logits"] == INT8


def test_last_layer_is_found_behind_pass_layers(chain):
    plan = make_plan(chain(conv("a"), conv("classes", 5, 8), layers.Flatten(name="flat")), SPEC)
    assert plan.weight_grids["classes"] == signed(6)
    assert plan.output_grids["classes"] == INT8
    assert "flat" not in plan.output_grids


def scale(name):
    """A scale for each channel, as a BatchNormalization becomes one that no kernel stands before."""
    return layers.DepthwiseConv2D(1, name=name)


def both(*ends):
    """Layers that read the same tensor, and the sum of what they make."""
    return lambda x: layers.Add(name="add")([end(x) for end in ends])


# What a network is made of behind its pixels -> layers of the first width, of the last, of the inner one.
ENDS = {
    "BatchNormalization on the picture": ([scale("bn"), conv("a"), conv("b"), conv("c", 5)], "a", "c", "b"),
    "Conv, pool, Softmax": ([conv("a"), conv("b"), conv("c", 5), layers.GlobalAveragePooling2D()], "a", "c", "b"),
    "Conv, pool, scale": ([conv("a"), conv("b"), conv("c", 5), scale("bn")], "a", "c", "b"),
    "Conv, ReLU, pool": ([conv("a"), conv("c", 5), layers.ReLU(), layers.GlobalAveragePooling2D()], "a", "c", ""),
    "two branches at the pixels": ([both(conv("a"), conv("b", size=1)), conv("c"), conv("d", 5)], "ab", "d", "c"),
    "branch that goes on": (
        [both(conv("a"), lambda x: conv("c")(conv("b")(x))), conv("d"), conv("e", 5)],
        "ab",
        "e",
        "cd",
    ),
    "two branches at the logits": ([conv("a"), conv("b"), both(conv("c", 5), conv("d", 5))], "a", "cd", "b"),
    "branches of two lengths at the logits": (
        [conv("a"), both(conv("c", 5), lambda x: conv("d", 5)(conv("b")(x)))],
        "a",
        "cd",
        "b",
    ),
    "residual end": ([conv("a"), conv("b", 5), both(lambda x: x, conv("c", 5))], "a", "c", "b"),
    "residual end, pooled": (
        [conv("a", 5), both(lambda x: x, lambda x: conv("c", 5)(conv("b")(x))), layers.GlobalAveragePooling2D()],
        "a",
        "c",
        "b",
    ),
    "pixels are read late too": (
        [lambda x: layers.Concatenate(name="join")([conv("b")(conv("a")(x)), x]), conv("c"), conv("d", 5)],
        "a",
        "d",
        "bc",
    ),
    "one layer is the last one": ([conv("a", 5)], "", "a", ""),
    "two layers": ([conv("a"), conv("b", 5)], "a", "b", ""),
    "depthwise stem": ([layers.DepthwiseConv2D(3, name="a"), conv("b"), conv("c", 5)], "a", "c", "b"),
    "gate": ([conv("a"), lambda x: layers.Multiply(name="m")([x, conv("b")(x)]), conv("c", 5)], "a", "c", "b"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_first_and_last_are_those_with_no_kernel_before_or_behind_them(name, chain):
    """At 6352718 both end convolutions got the inner width behind a scale, or where pooling follows."""
    body, first, last, inner = ENDS[name]
    plan = make_plan(chain(*body), SPEC)
    widths = {layer: grid.num_bits for layer, grid in plan.weight_grids.items() if layer != "bn"}
    expected = {**dict.fromkeys(first, 7), **dict.fromkeys(inner, 3), **dict.fromkeys(last, 6)}
    assert widths == expected


@pytest.mark.slow
def test_deep_networks_need_no_deep_recursion(chain):
    model, limit = chain(*[conv(f"c{n}") for n in range(120)]), sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        plan = make_plan(model, SPEC)
    finally:
        sys.setrecursionlimit(limit)
    assert [plan.weight_grids[f"c{n}"].num_bits for n in (0, 1, 118, 119)] == [7, 3, 3, 6]


def test_linear_bottleneck_has_a_signed_narrow_grid(chain):
    plan = make_plan(chain(conv("a"), layers.BatchNormalization(name="bn"), conv("b"), layers.Flatten(), dense()), SPEC)
    assert plan.output_grids["bn"] == IntegerGrid(4, -7, 7)
    assert "a" not in plan.output_grids  # its BatchNormalization ends the operator


@pytest.mark.parametrize(
    "make_layers, last",
    [
        (lambda: [layers.ReLU(name="relu")], "relu"),
        (lambda: [layers.ReLU(6.0, name="relu")], "relu"),
        (lambda: [layers.Activation("relu", name="relu")], "relu"),
        (lambda: [layers.Activation(tf.nn.relu6, name="relu")], "relu"),
        (lambda: [layers.BatchNormalization(name="bn"), layers.ReLU(name="relu")], "relu"),
        (lambda: [conv("fused", activation="relu")], "fused"),
        (lambda: [layers.ReLU(name="relu"), layers.Activation("linear", name="identity")], "identity"),
    ],
)
def test_activation_folds_and_makes_the_grid_unsigned(chain, make_layers, last):
    plan = make_plan(chain(conv("a"), *make_layers(), conv("b"), layers.Flatten(), dense()), SPEC)
    assert plan.output_grids[last] == unsigned(4)


def test_pass_layers_have_no_grid_and_carry_their_producers(chain):
    model = chain(
        conv("a"),
        layers.ReLU(name="relu"),
        layers.MaxPooling2D(name="max"),
        layers.ZeroPadding2D(name="zeros"),
        layers.Dropout(0.5, name="drop"),
        conv("b"),
        layers.Flatten(name="flat"),
        layers.Reshape((-1,), name="reshape"),
        dense(),
    )
    plan = make_plan(model, SPEC)
    assert set(plan.output_grids) == {"pixels", "pixels_requantize", "relu", "b", "logits"}
    assert plan.output_grids["relu"] == unsigned(4)  # of the convolution behind three pass layers
    assert plan.output_grids["b"] == signed(6)  # of the last layer
    assert plan.requantized == {("pixels", "a"): "pixels_requantize"}


def test_pass_layer_with_mixed_readers_is_requantized_behind_it():
    def pooled(x):
        x = layers.MaxPooling2D(name="max")(layers.ReLU(name="relu")(conv("stem")(x)))
        return dense()(layers.Flatten()(layers.Add(name="add")([x, conv("main")(x)])))

    plan = make_plan(branches(pooled), SPEC)
    assert plan.output_grids["relu"] == unsigned(5)
    assert plan.output_grids["max_requantize"] == unsigned(4)
    assert plan.requantized == {("pixels", "stem"): "pixels_requantize", ("max", "main"): "max_requantize"}


@pytest.mark.parametrize("second, expected", [("relu", unsigned(5)), ("linear", signed(5))])
def test_arithmetic_is_unsigned_if_all_its_inputs_are(second, expected):
    def joined(x):
        both = [conv("a", activation="relu")(x), conv("b", activation=second)(x)]
        x = layers.Add(name="add")([layers.Concatenate(name="concat")(both), conv("c", 8, activation="relu")(x)])
        return dense()(layers.GlobalAveragePooling2D(name="pool")(x))

    plan = make_plan(branches(joined), SPEC)
    assert plan.output_grids["concat"] == expected
    assert plan.output_grids["add"] == expected
    assert plan.output_grids["pool"] == (signed(6) if expected == signed(5) else unsigned(6))


@pytest.mark.parametrize(
    "scale, offset, grid",
    [
        (1 / 64, -2.0, IntegerGrid(8, -128, 127)),
        (1 / 255, 0.0, IntegerGrid(8, 0, 255)),
        (0.5, -50.0, IntegerGrid(8, -100, 155)),
    ],
)
def test_pixel_grid_comes_from_the_normalization(chain, scale, offset, grid):
    model = chain(layers.Rescaling(scale, offset, name="normalization"), conv("a"), layers.Flatten(), dense())
    params = pixel_params(model)
    assert params.grid == grid
    assert params.scale == pytest.approx(scale)
    assert params.zero_point == 127 - grid.qmax
    plan = make_plan(model, SPEC)
    assert plan.output_grids["normalization"] == grid
    assert plan.output_grids["normalization_requantize"] == (signed(7) if grid.qmin else unsigned(7))
    assert "pixels" not in plan.output_grids


def test_pixels_without_normalization_are_read_as_they_are(chain):
    params = pixel_params(chain(conv("a"), layers.Flatten(), dense()))
    assert (params.grid, params.scale) == (unsigned(8), 1.0)


def test_parents_are_in_order_and_roles_are_by_type():
    model = build("resnet8")
    assert [p.name for p in parents(model.get_layer("stage2_block1_add"))] == [
        "stage2_block1_projection",
        "stage2_block1_bn2",
    ]
    assert parents(model.get_layer("pixels")) == []
    names = ("pixels", "normalization", "stem_conv", "stem_bn", "stage1_block1_add", "logits")
    assert [role(model.get_layer(n)) for n in names] == ["pixels", "pixels", "compute", "fold", "arithmetic", "compute"]


@pytest.mark.parametrize("largest", [None, 6.0])
def test_relu_that_no_operator_applies_is_an_operator_of_its_own(chain, largest):
    pooled = [conv("a"), layers.MaxPooling2D(name="max"), layers.ReLU(largest, name="relu")]
    plan = make_plan(chain(*pooled, conv("b"), layers.Flatten(), dense()), SPEC)
    assert plan.output_grids["a"] == signed(5)  # an operator that is no convolution reads it
    assert plan.output_grids["relu"] == unsigned(4)
    assert plan.clipped_by_grid == {"relu"}  # also where it must end at 6: the grid does
    assert plan.requantized == {("pixels", "a"): "pixels_requantize"}


def test_relu_of_a_tensor_that_is_read_elsewhere_too_is_an_operator_of_its_own():
    def shared(x):
        x = conv("a")(x)
        y = conv("b")(layers.ReLU(name="relu")(x))
        return dense()(layers.Flatten()(layers.Add(name="add")([x, y])))

    plan = make_plan(branches(shared), SPEC)
    assert (plan.output_grids["a"], plan.output_grids["relu"]) == (signed(5), unsigned(4))


@pytest.mark.parametrize(
    "layer, name",
    [
        (layers.ReLU(), "relu"),
        (layers.ReLU(6), "relu6"),
        (layers.ReLU(4.0), "relu(max_value=4.0)"),
        (layers.ReLU(negative_slope=0.5), "leaky_relu(alpha=0.5)"),
        (
            layers.ReLU(6, negative_slope=0.5, threshold=1),
            "relu(negative_slope=0.5, threshold=1, max_value=6)",
        ),
        (layers.LeakyReLU(0.5), "leaky_relu(alpha=0.5)"),
        (layers.Dense(1, activation=layers.LeakyReLU(0.25)), "leaky_relu(alpha=0.25)"),
        (layers.Dense(1, activation=tf.nn.leaky_relu), "leaky_relu(alpha=0.2)"),
        (layers.Activation(functools.partial(tf.nn.leaky_relu, alpha=0.5)), "leaky_relu(alpha=0.5)"),
        (layers.Activation(functools.partial(tf.nn.leaky_relu, name="x")), "function partial"),
        (layers.Activation("swish"), "swish"),
        (layers.Conv2D(1, 1), "linear"),
        (layers.Dense(1, activation="softmax"), "softmax"),
        (layers.Flatten(), "linear"),
    ],
)
def test_activation_name(layer, name):
    assert activation_name(layer) == name


REFUSALS = {
    "unknown layer type": ("bad", "Conv2DTranspose; use one of", lambda: [layers.Conv2DTranspose(2, 3, name="bad")]),
    "subclass of a known type": ("bad", "SeparableConv2D", lambda: [layers.SeparableConv2D(2, 3, name="bad")]),
    "softmax in Dense": (
        "bad",
        "activation softmax; only a softmax at the very end is left out; remove this one",
        lambda: [layers.Flatten(), dense("bad", activation="softmax")],
    ),
    "unknown activation": (
        "bad",
        "activation tanh; use relu",
        lambda: [conv("c"), layers.Activation("tanh", name="bad")],
    ),
    "activation inside a convolution": ("bad", "activation elu", lambda: [conv("bad", activation="elu")]),
    "other clip of ReLU": ("bad", "max_value=0.0", lambda: [conv("c"), layers.ReLU(0.0, name="bad")]),
    "slope": ("bad", "use ReLU or LeakyReLU", lambda: [conv("c"), layers.ReLU(negative_slope=0.1, name="bad")]),
    "hardly a slope": (
        "bad",
        "slope 0.001; LiteRT takes 1/128",
        lambda: [conv("c"), layers.LeakyReLU(1e-3, name="bad")],
    ),
    "no slope": ("bad", "slope nan", lambda: [conv("c"), layers.LeakyReLU(float("nan"), name="bad")]),
    "threshold": ("bad", "threshold", lambda: [conv("c"), layers.ReLU(threshold=0.5, name="bad")]),
    "BN after pooling": (
        "bad",
        "cannot be folded",
        lambda: [conv("c"), layers.MaxPooling2D(), layers.BatchNormalization(name="bad")],
    ),
    "BN after an activation": (
        "bad",
        "cannot be folded",
        lambda: [conv("c"), layers.ReLU(), layers.BatchNormalization(name="bad")],
    ),
    "BN after a fused activation": (
        "bad",
        "cannot be folded",
        lambda: [conv("c", activation="relu"), layers.BatchNormalization(name="bad")],
    ),
    "BN of pixels": ("bad", "cannot be folded", lambda: [layers.BatchNormalization(name="bad"), conv("c")]),
    "pixels between pixels": (
        "bad",
        "has interpolation bilinear; use nearest",
        lambda: [conv("c"), layers.UpSampling2D(interpolation="bilinear", name="bad")],
    ),
    "padded channels": (
        "bad",
        "reads channels that a ZeroPadding2D makes",
        lambda: [
            conv("c"),
            layers.ZeroPadding2D(((0, 0), (1, 1)), data_format="channels_first"),
            layers.MaxPooling2D(1),
            conv("bad"),
        ],
    ),
    "channels first": (
        "bad",
        "channels_first",
        lambda: [conv("c"), layers.MaxPooling2D(data_format="channels_first", name="bad")],
    ),
    "Dense on a picture": ("bad", "put Flatten", lambda: [conv("c"), dense("bad"), layers.Flatten()]),
    "scale by channel": (
        "bad",
        "normalise the student's pixels with scalars",
        lambda: [layers.Rescaling([0.1, 0.2, 0.3], [0.0, 0.0, 0.0], name="bad"), conv("c")],
    ),
    "fraction of a pixel": ("bad", "whole pixel", lambda: [layers.Rescaling(1.0, -0.5, name="bad"), conv("c")]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_names_the_layer_and_the_reason(chain, case):
    name, reason, make_layers = REFUSALS[case]
    with pytest.raises(ExperimentError) as error:
        make_plan(chain(*make_layers()), SPEC)
    assert f"layer {name} " in str(error.value)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "make_outputs, reason",
    [
        (
            lambda x: layers.BatchNormalization(name="bad")(layers.Add()([conv("a")(x), conv("b")(x)])),
            "layer bad does not directly follow a convolution",
        ),
        (
            lambda x: (lambda y: layers.Add()([y, layers.BatchNormalization(name="bad")(y)]))(conv("shared")(x)),
            "layer bad reads shared, whose output is read elsewhere too",
        ),
        (
            lambda x: (lambda bad: bad(bad(x)))(conv("bad", 3)),
            "layer bad is used 2 times",
        ),
        (lambda x: [conv("a")(x), conv("b")(x)], "1 input and 2 outputs"),
        (
            lambda x: layers.Add(name="bad")([conv("a")(x), conv("b")(x), conv("c")(x)]),
            "layer bad adds 3 tensors; add two at a time",
        ),
    ],
    ids=["BN after Add", "shared fold", "shared layer", "two outputs", "three terms"],
)
def test_refusal_of_a_graph_names_the_layer_and_the_reason(make_outputs, reason):
    with pytest.raises(ExperimentError, match=reason):
        make_plan(branches(make_outputs), SPEC)


def test_average_of_the_whole_map_and_relu_after_addition_are_possible():
    def whole(x):
        x = layers.ReLU(name="sum_relu")(layers.Add()([conv("a")(x), conv("b")(x)]))
        return dense()(layers.Flatten()(layers.AveragePooling2D(8, name="pool")(x)))

    assert problems(branches(whole)) == []
    assert make_plan(branches(whole), SPEC).output_grids["sum_relu"] == unsigned(5)


def test_average_of_windows_is_arithmetic_with_a_grid_of_its_own(chain):
    model = chain(
        conv("a", activation="relu"),
        layers.AveragePooling2D((3, 2), (2, 1), name="windows"),
        conv("b"),
        layers.Flatten(),
        dense(),
    )
    assert role(model.get_layer("windows")) == "arithmetic"
    plan = make_plan(model, SPEC)
    assert plan.output_grids["a"] == unsigned(5)  # read by the average
    assert plan.output_grids["windows"] == unsigned(4)  # read by a convolution
    assert plan.requantized == {("pixels", "a"): "pixels_requantize"}


def test_all_problems_are_told_at_once(chain):
    model = chain(conv("first", activation="elu"), conv("second", activation="selu"), layers.Flatten(), dense())
    assert [line.split()[1] for line in problems(model)] == ["first", "second"]


@pytest.mark.parametrize("name", ["convnet_small", "resnet8", "resnet20", "resnet20_projection"])
def test_zoo_has_no_problem(name):
    assert problems(build(name)) == []


def test_rescaling_inside_the_network_is_refused(chain):
    model = chain(conv("a"), layers.Rescaling(2.0, name="bad"), conv("b"), layers.Flatten(), dense())
    with pytest.raises(ExperimentError, match="bad"):
        make_plan(model, SPEC)


def test_two_normalizations_in_a_row_are_refused_or_composed(chain):
    model = chain(layers.Rescaling(0.5, -64.0, name="one"), layers.Rescaling(0.5, 0.0, name="two"), conv("a"))
    try:
        params = pixel_params(model)
    except ExperimentError:
        return
    assert (params.scale, params.grid.qmin) == (0.25, -128)


def test_pixels_read_both_raw_and_normalized_are_refused():
    def both(x):
        return layers.Add()([conv("raw")(x), conv("scaled")(layers.Rescaling(1 / 64, name="normalization")(x))])

    with pytest.raises(ExperimentError, match="pixels|normalization"):
        make_plan(branches(both), SPEC)


@pytest.mark.parametrize("mean", [255.0, 300.0, -5.0])
def test_normalization_outside_the_pixel_range_is_refused_with_its_layer(chain, mean):
    with pytest.raises(ExperimentError, match="bad"):
        make_plan(chain(layers.Rescaling(1.0, -mean, name="bad"), conv("a")), SPEC)


def test_sequential_model_is_planned_or_refused_in_words():
    model = tf_keras.Sequential([layers.InputLayer((8, 8, 3)), conv("a"), layers.Flatten(), dense()])
    try:
        plan = make_plan(model, SPEC)
    except ExperimentError as error:
        assert "functional" in str(error)
    else:
        assert list(plan.weight_grids) == ["a", "logits"]


def test_relu_is_left_to_an_unsigned_grid_and_relu6_to_one_that_a_batch_norm_and_kernels_enclose():
    plan = make_plan(build("resnet8"), SPEC)
    relus = {f"stage{s}_block1_relu{n}" for s in (1, 2, 3) for n in (1, 2)} | {"stem_relu"}
    assert plan.clipped_by_grid == relus
    assert plan.batch_norms == {f"stage{s}_block1_relu1": f"stage{s}_block1_bn1" for s in (1, 2, 3)}
    plan = make_plan(build("mobilenet_v2_0.35", size=32), SPEC)
    assert "out_relu" not in plan.clipped_by_grid  # an average reads it: its grid may be widened beyond 6
    assert plan.batch_norms["block_1_expand_relu"] == "block_1_expand_BN"
    assert plan.batch_norms["block_16_project_BN"] == "block_16_project_BN"  # a linear bottleneck without an addition
    assert "block_2_project_BN" not in plan.batch_norms


@pytest.mark.parametrize(
    "body, batch_norms",
    [
        ([layers.BatchNormalization(name="bn"), layers.ReLU(name="end")], {"end": "bn"}),
        ([layers.BatchNormalization(name="bn"), layers.ReLU(6.0, name="end")], {"end": "bn"}),
        ([layers.BatchNormalization(name="bn"), layers.Activation("relu", name="end")], {"end": "bn"}),
        ([layers.BatchNormalization(name="bn")], {"bn": "bn"}),
        ([layers.BatchNormalization(name="bn"), layers.ReLU(name="end"), layers.MaxPooling2D(2)], {"end": "bn"}),
        ([layers.BatchNormalization(name="bn", scale=False), layers.ReLU(name="end")], {}),
        ([layers.ReLU(name="end")], {}),
        ([layers.BatchNormalization(name="bn"), layers.ReLU(name="end"), layers.AveragePooling2D(2)], {}),
    ],
    ids=["relu", "relu6", "activation", "linear", "through pooling", "no gamma", "no batch norm", "average reads"],
)
def test_batch_norms_are_those_whose_tensor_kernels_alone_read(chain, body, batch_norms):
    model = chain(conv("first"), *body, conv("second"), layers.Flatten(), dense())
    found = make_plan(model, SPEC).batch_norms
    assert {name: bn for name, bn in found.items() if bn in ("bn",)} == batch_norms


@pytest.mark.parametrize("other", [[layers.ReLU(), conv("branch")], [layers.ReLU(6.0), conv("branch")], []])
def test_relu_of_a_batch_norm_that_others_read_makes_its_own_tensor(other):
    """A block of pre-activation; NASNet has such ReLUs, two of one BatchNormalization."""
    inputs = tf_keras.Input((8, 8, 3))
    x = y = layers.BatchNormalization()(conv("first")(inputs))
    for layer in other:
        y = layer(y)
    y = layers.Add()([conv("second")(layers.ReLU()(x)), y])
    assert make_plan(tf_keras.Model(inputs, dense()(layers.Flatten()(y))), SPEC).batch_norms == {}


def _gated(other):
    """A model that multiplies its map by something of it."""
    inputs = tf_keras.Input((8, 8, 3), name="pixels")
    x = conv("a", 4)(inputs)
    y = other(x)
    return tf_keras.Model(inputs, conv("b", 5)(layers.Multiply(name="product")([x, y])))


def test_sigmoid_has_the_one_grid_of_tflite_and_its_readers_are_residual():
    plan = make_plan(_gated(layers.Activation("sigmoid", name="gate")), SPEC)
    assert plan.fixed == {"gate": 1 / 256}
    assert plan.output_grids["gate"] == unsigned(8)
    assert plan.output_grids["a"] == signed(SPEC.residual_bits)
    assert plan.output_grids["product"] == IntegerGrid(SPEC.last_layer_bits, -8, 55)


def test_product_of_what_is_never_negative_is_unsigned():
    inputs = tf_keras.Input((8, 8, 3), name="pixels")
    x = conv("a", 4, activation="relu")(inputs)
    product = layers.Multiply(name="product")([x, layers.Activation("sigmoid", name="gate")(x)])
    plan = make_plan(tf_keras.Model(inputs, conv("b", 5)(product)), SPEC)
    assert plan.output_grids["product"] == unsigned(SPEC.last_layer_bits)


@pytest.mark.parametrize(
    "other, problem",
    [
        (lambda: layers.MaxPooling2D(8), None),
        (lambda: layers.AveragePooling2D((1, 8)), "multiplies shapes"),
    ],
    ids=["one value a channel", "one value a row"],
)
def test_product_of_other_shapes(other, problem):
    found = problems(_gated(other()))
    assert bool(found) == bool(problem)
    assert not problem or ("product" in found[0] and problem in found[0])


def _fork(*readers):
    """One map that several convolutions read, and their sum."""
    inputs = tf_keras.Input((8, 8, 3), name="pixels")
    x = conv("stem", 4, activation="relu")(inputs)
    branches = [conv(name, 4)(x) for name in readers]
    x = branches[0] if len(branches) == 1 else layers.Add(name="add")(branches)
    return tf_keras.Model(inputs, conv("logits", 5)(x))


def rules(*texts):
    return QuantizationSpec(weight_bits=3, activation_bits=4, residual_bits=7, bits_rule=texts)


def test_rule_sets_kernel_and_input_of_the_layers_that_it_fits():
    plan = make_plan(_fork("a", "b"), rules("a=w2a6", "b=w5a6"))
    assert (plan.weight_grids["a"].num_bits, plan.weight_grids["b"].num_bits) == (2, 5)
    assert plan.output_grids["stem"] == unsigned(6)
    assert plan.requantized == {}


def test_layers_that_want_fewer_bits_of_one_tensor_get_a_requantization_each():
    plan = make_plan(_fork("a", "b"), rules("a=a6", "b=a3"))
    assert plan.output_grids["stem"] == unsigned(6)
    assert plan.requantized[("stem", "b")] == "stem_requantize" and ("stem", "a") not in plan.requantized
    assert plan.output_grids["stem_requantize"] == unsigned(3)


def test_two_narrower_widths_are_two_requantizations():
    inputs = tf_keras.Input((8, 8, 3), name="pixels")
    x = conv("stem", 4, activation="relu")(inputs)
    y = layers.Add(name="add1")([conv("a", 4)(x), conv("b", 4)(x)])
    model = tf_keras.Model(inputs, conv("logits", 5)(layers.Add(name="add2")([x, y])))
    plan = make_plan(model, rules("a=a6", "b=a3"))
    assert plan.output_grids["stem"] == unsigned(7)
    assert plan.requantized[("stem", "a")] == "stem_6bit_requantize"
    assert plan.requantized[("stem", "b")] == "stem_3bit_requantize"
    assert plan.output_grids["stem_6bit_requantize"] == unsigned(6)
    assert plan.output_grids["stem_3bit_requantize"] == unsigned(3)


def test_later_rules_go_before_earlier_ones_and_before_first_and_last():
    plan = make_plan(_fork("a", "b"), rules(".*=w5", "logits=w2", "b=a2"))
    assert {name: grid.num_bits for name, grid in plan.weight_grids.items()} == {"stem": 5, "a": 5, "b": 5, "logits": 2}
    assert plan.output_grids["stem"] == unsigned(4)


@pytest.mark.parametrize(
    "rule, told",
    [
        ("add=w4", "there are stem, a, b, logits"),
        ("block_.*=w4", "there are stem, a, b, logits"),
        ("ste=w4", "did you mean stem?"),
    ],
)
def test_rule_that_fits_no_layer_with_a_kernel_is_an_error_that_names_those_there_are(rule, told):
    told = re.escape(f"--bits_rule={rule} matches no layer with a kernel; {told}")
    with pytest.raises(ExperimentError, match=told):
        make_plan(_fork("a", "b"), rules(rule))


def test_scale_for_each_channel_has_eight_bits_and_reads_residual_tensors_as_they_are():
    inputs = tf_keras.Input((8, 8, 3), name="pixels")
    x = conv("stem", 4, activation="relu")(inputs)
    x = layers.DepthwiseConv2D(1, name="scale")(x)
    plan = make_plan(tf_keras.Model(inputs, conv("logits", 5)(conv("inner", 4)(x))), rules())
    assert plan.weight_grids["scale"].num_bits == 8 and plan.weight_grids["inner"].num_bits == 3
    assert plan.output_grids["stem"] == unsigned(7) and plan.output_grids["scale"] == signed(4)


def swish(x, name):
    return layers.Multiply(name=name)([x, layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)])


def hard_swish(x, name, kernel=1 / 6, trainable=False):
    """As `standard_form` writes it."""
    scale = layers.DepthwiseConv2D(1, trainable=trainable, name=f"{name}_scale", depthwise_initializer=Constant(kernel))
    return layers.Multiply(name=name)([x, layers.ReLU(1.0, name=f"{name}_gate")(scale(x))])


def excited(x, name):
    gate = conv(f"{name}_conv")(layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x))
    return layers.Multiply(name=name)([x, layers.Activation("sigmoid", name=f"{name}_gate")(gate)])


EIGHTH, FIFTH = IntegerGrid(4, -2, 13), IntegerGrid(4, -3, 12)
UNEVEN = {
    "swish": (lambda x: swish(x, "t"), EIGHTH),
    "hard swish": (lambda x: hard_swish(x, "t"), EIGHTH),
    "hard swish that may turn round": (lambda x: hard_swish(x, "t", trainable=True), signed(4)),
    "falling gate": (lambda x: hard_swish(x, "t", kernel=-1 / 6), signed(4)),
    "product of two": (lambda x: layers.Multiply(name="t")([x, conv("other")(x)]), signed(4)),
    "gate of another": (lambda x: excited(x, "t"), signed(4)),
    "gated swish": (lambda x: excited(swish(x, "s"), "t"), EIGHTH),
    "gated relu": (lambda x: excited(layers.ReLU()(x), "t"), unsigned(4)),
    "swish of what is positive": (lambda x: swish(layers.ReLU()(x), "t"), unsigned(4)),
    "moved": (lambda x: layers.MaxPooling2D()(layers.Reshape((4, 16, 4))(swish(x, "t"))), EIGHTH),
    "leaky": (lambda x: layers.LeakyReLU(0.25, name="t")(x), FIFTH),
    "leaky, hardly": (lambda x: layers.LeakyReLU(0.01, name="t")(x), IntegerGrid(4, -1, 14)),
    "leaky, steep": (lambda x: layers.LeakyReLU(2.0, name="t")(x), signed(4)),
    "leaky, turned up": (lambda x: layers.LeakyReLU(-0.5, name="t")(x), unsigned(4)),
    "leaky of what is positive": (lambda x: layers.LeakyReLU(name="t")(layers.ReLU()(x)), unsigned(4)),
    "learned slopes": (lambda x: layers.PReLU(name="t")(x), FIFTH),
}


@pytest.mark.parametrize("case", UNEVEN)
def test_what_reaches_a_little_below_zero_has_a_grid_that_does(case):
    make, grid = UNEVEN[case]
    model = branches(lambda x: conv("last")(conv("reader")(make(conv("first")(x)))))
    plan = make_plan(model, dataclasses.replace(SPEC, residual_bits=8))
    name = plan.requantized.get(("t", "reader"), "t")
    assert plan.output_grids[name] == grid
    if "leaky" in case or "slopes" in case:
        assert (name, plan.output_grids["t"].num_bits) == ("t_requantize", 8)


@pytest.mark.parametrize("deviation, at_least", [(0.5, 0.85), (1.0, 2.0), (2.0, 2.0), (4.0, 2.0)])
def test_a_swish_is_nearer_to_an_uneven_grid_than_to_a_symmetric_one(deviation, at_least):
    x = np.random.default_rng(0).normal(0, deviation, 10_000)
    y = x * np.clip(x + 3, 0, 6) / 6

    def error(grid):
        interval = mse_interval(y, grid)
        return np.mean((np.clip(np.round(y / interval), grid.qmin, grid.qmax) * interval - y) ** 2)

    assert error(signed(4)) >= at_least * error(EIGHTH)


def test_a_residual_tensor_of_eight_bits_keeps_the_signed_grid():
    plan = make_plan(branches(lambda x: layers.Add(name="sum")([x, swish(conv("c", filters=3)(x), "t")])), SPEC)
    assert plan.output_grids["t"] == IntegerGrid(5, -4, 27)  # residual_bits
    spec = dataclasses.replace(SPEC, residual_bits=8)
    plan = make_plan(branches(lambda x: layers.Add(name="sum")([x, swish(conv("c", filters=3)(x), "t")])), spec)
    assert plan.output_grids["t"] == INT8
