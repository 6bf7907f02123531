"""The table of a student: numbers by hand, and the limits of a target."""

import dataclasses

import pytest
from tf_keras import layers

from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import NetworkSpec, PixelNormalization, QuantizationSpec, TargetSpec
from qkd_tf.models import zoo
from qkd_tf.quantization import layer_table
from qkd_tf.quantization.plan import make_plan
from qkd_tf.quantization.roles import has_kernel

SPEC = QuantizationSpec(weight_bits=3, activation_bits=4)


@pytest.fixture(scope="module")
def table(make_residual_student):
    model = make_residual_student()
    return {row.name: row for row in layer_table.rows(model, make_plan(model, SPEC))}


def test_every_layer_has_its_row(make_residual_student, table):
    assert list(table) == [layer.name for layer in make_residual_student().layers]
    assert table["stem"].kind == "Conv2D" and table["stem"].output_shape == (8, 8, 4)


@pytest.mark.parametrize(
    "name, weight_bits, input_bits, parameters, multiply_adds, num_bytes",
    [
        ("stem", 8, 8, 3 * 3 * 3 * 4 + 4, 8 * 8 * 3 * 3 * 3 * 4, 108 + 16),
        ("depthwise", 3, 4, 3 * 3 * 4 + 4, 8 * 8 * 3 * 3 * 4, 14 + 16),  # 36 kernels of 3 bits are 13.5 bytes
        ("linear", 3, 4, 4 * 4 + 4, 8 * 8 * 4 * 4, 6 + 16),
        ("logits", 8, 8, 4 * 5 + 5, 4 * 5, 20 + 20),
    ],
)
def test_row_of_a_kernel_by_hand(table, name, weight_bits, input_bits, parameters, multiply_adds, num_bytes):
    row = table[name]
    assert (row.weight_bits, row.input_bits) == (weight_bits, input_bits)
    assert (row.parameters, row.multiply_adds, row.num_bytes) == (parameters, multiply_adds, num_bytes)


def test_rows_of_groups_and_of_a_depth_multiplier_by_hand_which_every_target_takes(chain):
    model = chain(
        layers.Conv2D(8, 3, padding="same", name="stem"),
        layers.Conv2D(12, 3, groups=4, padding="same", name="grouped"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="multiplied"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5),
    )
    found = layer_table.rows(model, make_plan(model, SPEC))
    rows = {row.name: (row.parameters, row.multiply_adds) for row in found}
    assert rows["grouped"] == (3 * 3 * 2 * 12 + 12, 8 * 8 * 3 * 3 * 2 * 12)  # a filter reads 2 of the 8 channels
    assert rows["multiplied"] == (3 * 3 * 24 + 24, 6 * 6 * 3 * 3 * 24)
    assert [layer_table.limits(found, model, TargetSpec(target)) for target in TARGETS] == [[]] * 3


def test_what_is_folded_or_has_no_kernel_costs_nothing(table):
    for name in ("stem_bn", "stem_relu", "add", "pool"):
        assert (table[name].parameters, table[name].multiply_adds, table[name].num_bytes) == (0, 0, 0)
    assert table["add"].input_bits == 8 and table["stem_bn"].input_bits is None


@pytest.mark.slow
@pytest.mark.parametrize("name, millions", [("mobilenet_v2_1.0", 301), ("resnet18", 1814), ("efficientnet_b0", 386)])
def test_multiply_adds_are_those_of_the_literature(name, millions):
    """MobileNetV2 300 M, ResNet-18 1.8 G, EfficientNet-B0 0.39 G; the depthwise and 1x1 ones are counted too."""
    model = zoo.build(NetworkSpec(name, PixelNormalization((128.0,), (64.0,))), (224, 224, 3), 1000)
    total = sum(layer_table.multiply_adds(layer) for layer in model.layers if has_kernel(layer))
    assert round(total / 1e6) == millions


def test_weights_are_stored_as_the_target_stores_them(table, make_residual_student):
    rows = list(table.values())
    kernels = {"stem": 108, "depthwise": 36, "linear": 16, "logits": 20}
    biases = 4 * (4 + 4 + 4 + 5)
    assert layer_table.weight_bytes(rows, TargetSpec("phone")) == sum(kernels.values()) + biases
    assert layer_table.weight_bytes(rows, TargetSpec("microcontroller")) == 108 + 18 + 8 + 20 + biases
    model = make_residual_student()
    full_range = layer_table.rows(model, make_plan(model, dataclasses.replace(SPEC, narrow_range=False)))
    assert layer_table.weight_bytes(full_range, TargetSpec("microcontroller")) == sum(kernels.values()) + biases


def test_peak_of_activations_holds_the_shortcut_too(make_residual_student):
    assert layer_table.peak_activation_bytes(make_residual_student()) == 3 * 8 * 8 * 4  # shortcut, in and out of a conv


@pytest.mark.parametrize(
    "stack, unpacked",
    [
        ((layers.Conv2D(16, 8), layers.Conv2D(64, 1), layers.Conv2D(5, 1)), 16 + 64 + 16 * 64),  # input, output, kernel
        ((layers.Flatten(), layers.Dense(64), layers.Dense(8), layers.Dense(5)), 64 + 8 + 64 * 8),
    ],
    ids=["pointwise", "dense"],
)
def test_ram_for_unpacked_int4_is_told_where_the_limit_has_no_room_for_it(chain, stack, unpacked):
    model = chain(layers.Rescaling(1 / 64, -2.0), *stack)
    table = layer_table.rows(model, make_plan(model, SPEC))

    def notes(target, **options):
        return layer_table.notes_on_unpacking(table, model, TargetSpec(target, **options))

    (told,) = notes("microcontroller", max_ram_bytes=unpacked - 1)
    assert f"will take {unpacked:,} bytes or more, above --max_ram_bytes={unpacked - 1:,}; --weight_storage" in told
    assert notes("microcontroller", max_ram_bytes=unpacked) == [] == notes("microcontroller")
    assert notes("microcontroller", max_ram_bytes=500, weight_storage="int8") == [] == notes("phone", max_ram_bytes=500)


def test_pixels_and_what_they_mean_are_one_tensor(chain):
    model = chain(layers.Rescaling(1 / 64, -2.0), layers.Conv2D(2, 8, 8), layers.Flatten(), layers.Dense(5))
    assert layer_table.peak_activation_bytes(model) == 8 * 8 * 3 + 2


def test_long_strides_are_no_work_for_an_ethos_u(chain):
    model = chain(layers.Conv2D(4, 4, 4, name="patches"), layers.GlobalAveragePooling2D(), layers.Dense(5))
    table = layer_table.rows(model, make_plan(model, SPEC))
    assert "patches" in layer_table.limits(table, model, TargetSpec("ethos_u"))[0]
    assert layer_table.limits(table, model, TargetSpec("phone")) == []
