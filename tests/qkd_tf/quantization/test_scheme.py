import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.quantization.keras import quantize_scope
from tf_keras import layers

from qkd_tf.contract.grid import activation_params, weight_params
from qkd_tf.experiment import ExperimentError, NetworkSpec, PixelNormalization, QuantizationSpec
from qkd_tf.models import zoo
from qkd_tf.quantization.calibration import calibrate
from qkd_tf.quantization.plan import make_plan
from qkd_tf.quantization.quantizers import PositiveInterval
from qkd_tf.quantization.scheme import (
    FLOAT32_IMPLEMENTATION,
    MIXED_PRECISION_IMPLEMENTATION,
    XLA_IMPLEMENTATION,
    QuantizerImplementation,
    insert_requantize_layers,
    quantize_student,
)

LOW = QuantizationSpec(weight_bits=3, activation_bits=4)
EIGHT = QuantizationSpec(weight_bits=8, activation_bits=8)


@pytest.fixture(scope="module")
def student(make_residual_student):
    """The residual student, quantized and calibrated; tests only read it."""
    quantized = quantize_student(make_residual_student(), LOW)
    pixels = np.random.default_rng(7).integers(0, 256, (4, 8, 8, 3)).astype(np.float32)
    calibrate(quantized, [pixels], "mse")
    return quantized


def values(variables):
    return [v.numpy() for v in variables]


def assert_equal_values(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def rounded(x, interval, qmin, qmax):
    return interval * np.clip(np.round(x / interval), qmin, qmax)


def convolve(x, kernel):
    """3x3 convolution, stride 1, zeros around the picture: loops."""
    n, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((n, height, width, kernel.shape[-1]))
    for row in range(height):
        for column in range(width):
            patch = padded[:, row : row + 3, column : column + 3]
            y[:, row, column] = np.einsum("nijc,ijco->no", patch, kernel)
    return y


def test_one_convolution_network_computes_what_numpy_computes(chain):
    model = chain(
        layers.Rescaling(1 / 64, -2.0, name="normalization"),
        layers.Conv2D(2, 3, padding="same", activation="relu", name="conv"),
        layers.Flatten(),
        layers.Dense(3, name="logits"),
        input_shape=(4, 4, 1),
    )
    spec = QuantizationSpec(first_layer_bits=3, last_layer_bits=2)
    # Small multiples of powers of two: float32 holds every product and sum exactly, so equality is exact.
    rng = np.random.default_rng(3)
    kernel, bias = rng.integers(-40, 41, (3, 3, 1, 2)) / 64, np.array([0.5, -0.25])
    matrix, offset = rng.integers(-40, 41, (32, 3)) / 64, np.array([1.0, 0.0, -1.0])
    model.get_layer("conv").set_weights([kernel, bias])
    model.get_layer("logits").set_weights([matrix, offset])
    images = rng.integers(0, 256, (5, 4, 4, 1)).astype(np.float32)

    quantized = quantize_student(model, spec)
    quantized.outputs["normalization_requantize"].interval.assign(0.5)
    quantized.weights["conv"].interval.assign(0.125)
    quantized.outputs["conv"].interval.assign(0.5)
    quantized.weights["logits"].interval.assign(0.25)
    quantized.outputs["logits"].interval.assign(0.0625)

    x = rounded(images / 64 - 2.0, 0.5, -3, 3)
    x = np.maximum(convolve(x, rounded(kernel, 0.125, -3, 3)) + bias, 0.0)
    x = rounded(x, 0.5, 0, 3).reshape(5, 32)
    expected = rounded(x @ rounded(matrix, 0.25, -1, 1) + offset, 0.0625, -128, 127)

    np.testing.assert_array_equal(quantized.model.predict_on_batch(images), expected)
    np.testing.assert_array_equal(quantized.model(images, training=True), expected)
    assert len(np.unique(expected)) > 5


def test_residual_network_computes_what_plain_layers_compute_with_rounding_between(student, images):
    plain = student.plain

    def output(x, name):
        params = student.outputs[name].params()
        return rounded(x, np.float32(params.scale), params.grid.qmin, params.grid.qmax)

    def kernel(name):
        params = student.weights[name].params()
        variable = student.weights[name].kernel.numpy()
        return rounded(variable, np.float32(params.scale), params.grid.qmin, params.grid.qmax)

    def batch_norm(x, name):
        return plain.get_layer(name)(x, training=False).numpy()

    x = plain.get_layer("normalization")(images)
    x = batch_norm(tf.nn.conv2d(x, kernel("stem"), 1, "SAME"), "stem_bn")
    x = shortcut = output(np.maximum(x, 0), "stem_relu")
    x = output(x, "stem_relu_requantize")
    x = batch_norm(tf.nn.depthwise_conv2d(x, kernel("depthwise"), [1, 1, 1, 1], "SAME"), "depthwise_bn")
    x = output(np.maximum(x, 0), "depthwise_relu")
    x = output(batch_norm(tf.nn.conv2d(x, kernel("linear"), 1, "SAME"), "linear_bn"), "linear_bn")
    x = output(shortcut + x, "add")
    x = output(x.mean((1, 2)), "pool")
    x = output(x @ kernel("logits") + plain.get_layer("logits").bias.numpy(), "logits")

    steps = (student.model.predict_on_batch(images) - x) / student.outputs["logits"].params().scale
    # Sums in another order may tip a value over the edge of a step: one step of 8 bits at the end, not two.
    assert np.abs(steps).max() <= 1.001


def test_intervals_are_the_plans_and_start_at_one(make_residual_student):
    model = make_residual_student()
    plan, quantized = make_plan(model, LOW), quantize_student(model, LOW)
    assert {name: q.grid for name, q in quantized.weights.items()} == plan.weight_grids
    outputs = {name: q.grid for name, q in quantized.outputs.items()}
    assert outputs == {n: g for n, g in plan.output_grids.items() if n != "normalization"}
    assert quantized.pixels[0] == "normalization"
    assert quantized.pixels[1].grid == plan.output_grids["normalization"]
    intervals = quantized.weight_intervals + quantized.activation_intervals
    assert len({id(v) for v in intervals}) == len(plan.weight_grids) + len(plan.output_grids) - 1
    assert all(float(v.numpy()) == 1.0 for v in intervals)


def test_params_follow_the_interval_and_have_the_zero_point_of_their_kind(make_residual_student):
    quantized = quantize_student(make_residual_student(), LOW)
    quantized.weights["linear"].interval.assign(0.3)
    quantized.outputs["stem_relu"].interval.assign(0.7)
    assert quantized.weights["linear"].params() == weight_params(quantized.weights["linear"].grid, 0.3)
    assert quantized.outputs["stem_relu"].params() == activation_params(quantized.outputs["stem_relu"].grid, 0.7)


def test_kernel_is_the_latent_variable_that_trains(student):
    trained = {id(v) for v in student.model.trainable_variables}
    assert all(id(q.kernel) in trained for q in student.weights.values())
    for name, quantized in student.weights.items():
        kernel = "depthwise_kernel" if name == "depthwise" else "kernel"
        np.testing.assert_array_equal(quantized.kernel, getattr(student.plain.get_layer(name), kernel))


def test_trained_variables_are_those_of_the_float_model_and_the_intervals_once_each(student):
    trained = [id(v) for v in student.model.trainable_variables]
    assert len(set(trained)) == len(trained)
    assert len(trained) == len(student.plain.trainable_variables) + len(student.weights) + len(student.outputs)
    assert {id(v) for v in student.weight_intervals + student.activation_intervals} <= set(trained)


def test_every_trained_variable_has_a_gradient(student, images):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(student.model(images, training=True) ** 2)
    gradients = tape.gradient(loss, student.model.trainable_variables)
    missing = [v.name for v, g in zip(student.model.trainable_variables, gradients, strict=True) if g is None]
    assert missing == []
    assert np.isfinite([float(tf.norm(g)) for g in gradients]).all()
    stem = student.weights["stem"].kernel
    (gradient,) = [g for v, g in zip(student.model.trainable_variables, gradients, strict=True) if v is stem]
    assert float(tf.norm(gradient)) > 0  # it came through every quantizer


@pytest.mark.slow
def test_training_step_with_an_absurd_rate_leaves_intervals_positive(make_residual_student, images):
    quantized = quantize_student(make_residual_student(), LOW)
    intervals = quantized.weight_intervals + quantized.activation_intervals
    assert all(isinstance(v.constraint, PositiveInterval) for v in intervals)
    quantized.model.compile(tf_keras.optimizers.SGD(1e8), "mse")
    quantized.model.train_on_batch(images, np.full((4, 5), 100.0))
    assert min(float(v.numpy()) for v in intervals) == np.float32(1e-6)  # some were pushed to the bound
    assert all(float(v.numpy()) > 0 for v in intervals)


@pytest.mark.parametrize("mask, expected", [(True, 0.0), (False, 1.0)])
def test_options_reach_the_quantizers(chain, mask, expected):
    spec = QuantizationSpec(mask_weight_gradient=mask, interval_gradient_scale="lsq")
    model = chain(layers.Flatten(), layers.Dense(1, use_bias=False, name="logits"), input_shape=(1, 1, 1))
    quantized = quantize_student(model, spec)
    assert {q.quantizer.interval_gradient_scale for q in quantized.weights.values()} == {"lsq"}
    assert quantized.weights["logits"].quantizer.mask_gradient is mask
    assert quantized.outputs["logits"].quantizer.mask_gradient is True
    kernel = quantized.weights["logits"].kernel
    kernel.assign([[500.0]])  # 127 at the most
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quantized.model(np.ones((1, 1, 1, 1), np.float32)))
    assert tape.gradient(loss, kernel).numpy().tolist() == [[expected]]


@pytest.mark.slow
def test_eight_bits_and_fitted_intervals_follow_the_float_model(make_residual_student, images):
    model = make_residual_student()
    quantized = quantize_student(model, EIGHT)
    calibrate(quantized, [images], "minmax")
    ours, plain = quantized.model.predict_on_batch(images), model.predict_on_batch(images)
    assert np.corrcoef(ours.ravel(), plain.ravel())[0, 1] > 0.999
    # Six tensors are rounded on the way, each to 1 / 255 of its range or better.
    assert np.abs(ours - plain).max() < 0.03 * np.abs(plain).max()


def test_low_bits_are_really_lower(student, images):
    ours, plain = student.model.predict_on_batch(images), student.plain.predict_on_batch(images)
    assert np.abs(ours - plain).max() > 0.03 * np.abs(plain).max()


@pytest.mark.slow
def test_given_model_is_left_as_it_is(make_residual_student, images):
    model = make_residual_student()
    weights, names = values(model.variables), [layer.name for layer in model.layers]
    outputs, nodes = model.predict_on_batch(images), [len(layer.inbound_nodes) for layer in model.layers]
    quantized = quantize_student(model, LOW)
    quantized.model.compile(tf_keras.optimizers.SGD(0.1), "mse")
    quantized.model.train_on_batch(images, np.ones((4, 5)))
    assert_equal_values(values(model.variables), weights)
    assert [layer.name for layer in model.layers] == names
    assert [len(layer.inbound_nodes) for layer in model.layers] == nodes
    np.testing.assert_array_equal(model.predict_on_batch(images), outputs)


def test_plain_and_quantized_share_no_variable(make_residual_student):
    model = make_residual_student()
    quantized = quantize_student(model, LOW)
    groups = [{id(v) for v in m.variables} for m in (model, quantized.plain, quantized.model)]
    assert not groups[0] & groups[1] and not groups[1] & groups[2] and not groups[0] & groups[2]


@pytest.mark.slow
def test_training_moves_plain_only_when_copied_and_copies_are_unrounded(make_residual_student, images):
    model = make_residual_student()
    quantized = quantize_student(model, LOW)
    before = values(quantized.plain.variables)
    quantized.model.compile(tf_keras.optimizers.SGD(0.01), "mse")
    quantized.model.train_on_batch(images, np.ones((4, 5)))
    assert_equal_values(values(quantized.plain.variables), before)

    quantized.copy_weights_to_plain()
    after = values(quantized.plain.variables)
    # kernels, gammas and batch statistics alike; a dead ReLU may leave a variable where it was
    moved = [v.name for v, old, new in zip(quantized.plain.variables, before, after, strict=True) if (old != new).any()]
    for part in ("stem/kernel", "linear_bn/moving_mean", "linear_bn/moving_variance", "logits/bias"):
        assert any(part in name for name in moved), part
    for name, tensor in quantized.weights.items():
        kernel = "depthwise_kernel" if name == "depthwise" else "kernel"
        np.testing.assert_array_equal(getattr(quantized.plain.get_layer(name), kernel), tensor.kernel)


def test_copies_to_and_from_plain_are_inverse_and_cover_every_variable(make_residual_student, randomize):
    quantized = quantize_student(make_residual_student(seed=0), LOW)
    intervals = quantized.weight_intervals + quantized.activation_intervals
    for interval in intervals:
        interval.assign(0.25)
    randomize(quantized.plain, seed=1)
    expected = values(quantized.plain.variables)
    quantized.copy_weights_from_plain()
    randomize(quantized.plain, seed=2)
    quantized.copy_weights_to_plain()
    assert_equal_values(values(quantized.plain.variables), expected)
    assert all(float(v.numpy()) == 0.25 for v in intervals)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "resnet20"])
def test_requantize_layers_change_no_bit_of_the_float_model(randomize, name):
    normalization = PixelNormalization((128.0,), (64.0,))
    model = randomize(zoo.build(NetworkSpec(name, normalization), (8, 8, 3), 10))
    plan = make_plan(model, QuantizationSpec(first_layer_bits=4))
    copy = insert_requantize_layers(model, plan)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(copy(images, training=False), model(images, training=False))
    assert copy.name == model.name
    added = {layer.name for layer in copy.layers} - {layer.name for layer in model.layers}
    assert added == set(plan.requantized.values())
    for (producer, consumer), requantize in plan.requantized.items():
        (node,) = copy.get_layer(consumer).inbound_nodes
        assert node.inbound_layers is copy.get_layer(requantize)
        assert copy.get_layer(requantize).inbound_nodes[0].inbound_layers is copy.get_layer(producer)


def test_shared_requantize_layer_is_inserted_once():
    x = pixels = tf_keras.Input((4, 4, 2), name="pixels")
    x = layers.Conv2D(2, 1, activation="relu", name="stem")(x)
    both = [layers.Conv2D(2, 1, name=name)(x) for name in ("main", "projection")]
    model = tf_keras.Model(
        pixels, layers.Dense(2)(layers.Flatten()(layers.Add(name="add")([x, layers.Add(name="branches")(both)])))
    )
    quantized = quantize_student(model, LOW)
    consumers = {node.layer.name for node in quantized.plain.get_layer("stem_requantize").outbound_nodes}
    assert consumers == {"main", "projection"}
    assert [p.name for p in quantized.plain.get_layer("add").inbound_nodes[0].inbound_layers] == ["stem", "branches"]


def test_coverage_lists_each_tensor_in_order_with_width_and_interval(student):
    assert [row[:3] for row in student.coverage()] == [
        ("normalization", "input", 8),
        ("stem", "kernel", 8),
        ("stem_relu", "output", 8),
        ("stem_relu_requantize", "output", 4),
        ("depthwise", "kernel", 3),
        ("depthwise_relu", "output", 4),
        ("linear", "kernel", 3),
        ("linear_bn", "output", 8),
        ("add", "output", 8),
        ("pool", "output", 8),
        ("logits", "kernel", 8),
        ("logits", "output", 8),
    ]
    tensors = {"kernel": student.weights, "output": student.outputs}
    for name, what, _, interval in student.coverage():
        assert interval == (1 / 64 if what == "input" else float(tensors[what][name].interval.numpy()))


@pytest.mark.parametrize(
    "weight_bits, activation_bits, needs", [(8, 8, False), (5, 5, False), (8, 4, True), (4, 8, True)]
)
def test_a_student_needs_training_if_any_tensor_has_few_bits(
    make_residual_student, weight_bits, activation_bits, needs
):
    spec = QuantizationSpec(weight_bits=weight_bits, activation_bits=activation_bits)
    assert quantize_student(make_residual_student(), spec).needs_training == needs


def test_weights_file_brings_back_the_quantized_model_to_the_bit(student, make_residual_student, images, tmp_path):
    path = tmp_path / "student.weights.h5"
    student.model.save_weights(path)
    other = quantize_student(make_residual_student(seed=5), LOW)
    assert not np.array_equal(other.model.predict_on_batch(images), student.model.predict_on_batch(images))
    other.model.load_weights(path)
    np.testing.assert_array_equal(other.model.predict_on_batch(images), student.model.predict_on_batch(images))
    assert_equal_values(values(other.weight_intervals), values(student.weight_intervals))
    assert_equal_values(values(other.activation_intervals), values(student.activation_intervals))


def test_architecture_survives_its_config(student, images):
    with quantize_scope():
        copy = tf_keras.Model.from_config(student.model.get_config())
    # The order of a wrapper's weights tells whether its layer was built before it, so variables go by name.
    for layer in student.model.layers:
        theirs = {v.name.split("/")[-1]: v for v in copy.get_layer(layer.name).variables}
        for variable in layer.variables:
            theirs.pop(variable.name.split("/")[-1]).assign(variable)
        assert theirs == {}
    np.testing.assert_array_equal(copy.predict_on_batch(images), student.model.predict_on_batch(images))


def test_student_that_cannot_be_quantized_is_refused(chain):
    with pytest.raises(ExperimentError, match="layer bad "):
        quantize_student(chain(layers.Conv2D(2, 3, activation="tanh", name="bad")), LOW)


def make_zoo_network(name):
    return zoo.build(NetworkSpec(name, PixelNormalization((128.0,), (64.0,))), (8, 8, 3), 5)


def make_first_blocks_of_mobilenet():
    """Blocks with and without a shortcut, at stride 1 and 2, and a convolution of the 4 x 4 pixels that are left.

    An average of rounded values would lie on a rounding edge too often, where either side is right.
    """
    whole = make_zoo_network("mobilenet_v2_0.35_cifar")
    x = layers.Conv2D(16, 4, use_bias=False, name="Conv_1")(whole.get_layer("block_4_add").output)
    x = layers.ReLU(6.0, name="out_relu")(layers.BatchNormalization(name="Conv_1_bn")(x))
    x = layers.Dense(5, name="predictions")(layers.GlobalAveragePooling2D(name="pool")(x))
    return tf_keras.Model(whole.inputs, x)


def make_pre_activation():
    """A BatchNormalization that two ReLUs and an addition read."""
    inputs = tf_keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(inputs))
    branches = [layers.Conv2D(4, 3, padding="same")(relu(x)) for relu in (layers.ReLU(), layers.ReLU(6.0))]
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 6)(layers.Add()([x, layers.Add()(branches)])))
    return tf_keras.Model(inputs, layers.Dense(5)(x))


NETWORKS = {
    "resnet8": lambda: make_zoo_network("resnet8"),
    "mobilenet_v2": make_first_blocks_of_mobilenet,
    "pre-activation": make_pre_activation,
}


@pytest.fixture(params=["residual", *NETWORKS])
def network(request, make_residual_student, randomize):
    return make_residual_student() if request.param == "residual" else randomize(NETWORKS[request.param]())


def test_fast_forms_give_every_gradient_of_the_definition(network, images):
    """ReLU and ReLU6 left to the grid, intervals' gradients had from gamma, beta and kernels: nothing may change."""

    def gradients(implementation):
        student = quantize_student(network, QuantizationSpec(interval_gradient_share=1.0), implementation)
        calibrate(student, [images], "mse")
        with tf.GradientTape() as tape:
            logits = student.model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 3], logits / 100))
        variables = student.model.trainable_variables
        names = [v.name.removeprefix("quant_") for v in variables]
        at = dict(zip(names, tape.gradient(loss, variables), strict=True))
        kernels = {name: at[q.kernel.name.removeprefix("quant_")].numpy() for name, q in student.weights.items()}
        intervals = [q.interval for q in (*student.weights.values(), *student.outputs.values())]
        by_ref = {v.ref(): at[name] for v, name in zip(variables, names, strict=True)}
        return logits.numpy(), kernels, np.array([by_ref[v.ref()].numpy() for v in intervals])

    defined = gradients(XLA_IMPLEMENTATION)
    for title, implementation in (
        ("by neighbors", FLOAT32_IMPLEMENTATION),
        ("by itself", MIXED_PRECISION_IMPLEMENTATION),
    ):
        ours, of_intervals = gradients(implementation), 2e-3 * np.abs(defined[2]).max()
        np.testing.assert_allclose(ours[0], defined[0], atol=1e-3 * np.abs(defined[0]).max(), err_msg=title)
        for name, expected in defined[1].items():
            tolerance, where = 2e-3 * np.abs(expected).max(), f"{name}, {title}"
            np.testing.assert_allclose(ours[1][name], expected, atol=tolerance, err_msg=where)
        np.testing.assert_allclose(ours[2], defined[2], rtol=5e-2, atol=of_intervals, err_msg=title)


@pytest.mark.slow
def test_interval_that_stands_for_a_relu6_never_passes_6(images, randomize, chain):
    body = [layers.Rescaling(1 / 64, -2.0)]
    for kernel in (layers.Conv2D(4, 3, use_bias=False), layers.DepthwiseConv2D(3), layers.Conv2D(6, 1, use_bias=False)):
        body += [kernel, layers.BatchNormalization(), layers.ReLU(6.0)]
    model = randomize(chain(*body, layers.GlobalAveragePooling2D(), layers.Dense(5)))
    student = quantize_student(model, LOW)
    calibrate(student, [images * 100], "lsq")
    bounded = [q for q in student.outputs.values() if q.quantizer.largest_value]
    assert len(bounded) == 2  # all but the last, which the average reads
    assert all(float(q.interval) * q.grid.qmax <= 6.00001 for q in bounded)
    student.model.compile(tf_keras.optimizers.SGD(1e6), "mse")
    student.model.train_on_batch(images, np.full((4, 5), 100.0))
    assert all(float(q.interval) * q.grid.qmax <= 6.00001 for q in bounded)


def test_gradients_from_neighbors_need_the_fused_form():
    with pytest.raises(ValueError, match="gradient_from_neighbors needs fused"):
        QuantizerImplementation(fused=False, gradient_from_neighbors=True)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", [FLOAT32_IMPLEMENTATION, MIXED_PRECISION_IMPLEMENTATION, XLA_IMPLEMENTATION])
def test_ewgs_reaches_kernels_and_activations_whatever_the_form(make_residual_student, images, implementation):
    """Each implementation is the definition then, and its gradients are not quite those without it."""
    spec = dataclasses.replace(LOW, interval_gradient_share=1.0)

    def student(delta, implementation):
        quantized = quantize_student(
            make_residual_student(), dataclasses.replace(spec, ewgs_scale=delta), implementation
        )
        for tensor in (*quantized.weights.values(), *quantized.outputs.values()):
            tensor.interval.assign(0.25)
        return quantized

    def gradients(quantized):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(quantized.model(images, training=True) ** 2)
        return [g.numpy() for g in tape.gradient(loss, quantized.model.trainable_variables)]

    scaled = student(0.5, implementation)
    quantizers = [q.quantizer for q in (*scaled.weights.values(), *scaled.outputs.values())]
    assert {q.ewgs_scale for q in quantizers} == {0.5}
    ours, defined, plain = (
        gradients(scaled),
        gradients(student(0.5, XLA_IMPLEMENTATION)),
        gradients(student(0.0, XLA_IMPLEMENTATION)),
    )
    for a, b in zip(ours, defined, strict=True):
        np.testing.assert_array_equal(a, b)
    moved = [np.abs(a - b).max() / max(np.abs(b).max(), 1e-9) for a, b in zip(ours, plain, strict=True)]
    assert 0.001 < max(moved) < 0.5


def test_weights_of_frozen_layers_are_not_trained_though_tfmot_wraps_them(chain):
    """A kernel, a BatchNormalization that carries an interval's gradient, and one whose grid is elsewhere."""
    model = chain(
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(name="relu"),
        layers.Conv2D(4, 3, name="second"),
        layers.BatchNormalization(name="second_bn"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5, name="logits"),
    )

    def trained(*frozen):
        for layer in model.layers:
            layer.trainable = layer.name not in frozen
        student = quantize_student(model, QuantizationSpec())
        latent = {latent.ref(): plain.name for plain, latent in student._twins}
        intervals = {v.ref() for v in student.weight_intervals + student.activation_intervals}
        assert not intervals & {v.ref() for v in student.trained_weights}
        return sorted(latent[v.ref()].split(":")[0] for v in student.trained_weights)

    expected = ["bn/beta", "bn/gamma", "conv/bias", "conv/kernel", "logits/bias", "logits/kernel", "second/bias",
                "second/kernel", "second_bn/beta", "second_bn/gamma"]  # fmt: skip
    assert trained() == expected
    assert trained("conv") == [name for name in expected if not name.startswith("conv/")]
    assert trained("conv", "bn", "second_bn") == ["logits/bias", "logits/kernel", "second/bias", "second/kernel"]
    assert trained(*(layer.name for layer in model.layers)) == []


def test_features_are_the_tensor_that_the_last_layer_reads(student):
    layer, features = student.features
    assert layer is student.twin("logits") and features is student.outputs["pool"]


def test_a_student_of_one_layer_has_no_features(chain):
    body = chain(layers.Rescaling(1 / 64, -2.0, name="normalization"), layers.Flatten(), layers.Dense(3, name="logits"))
    with pytest.raises(ExperimentError, match="logits reads pixels"):
        _ = quantize_student(body, LOW).features
