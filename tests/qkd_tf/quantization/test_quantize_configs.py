import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize_wrapper

from qkd_tf.contract.grid import unsigned_grid, weight_grid
from qkd_tf.quantization.quantize_configs import BatchNormConfig, LearnedIntervalConfig
from qkd_tf.quantization.quantizers import ActivationQuantizer, LearnedIntervalQuantizer

WEIGHTS = LearnedIntervalQuantizer(weight_grid(3), mask_gradient=False, interval_gradient_scale="lsq")
OUTPUT = LearnedIntervalQuantizer(unsigned_grid(4))
CONFIGS = {
    "both": LearnedIntervalConfig("kernel", WEIGHTS, OUTPUT),
    "kernel": LearnedIntervalConfig("depthwise_kernel", WEIGHTS),
    "output": LearnedIntervalConfig(output_quantizer=OUTPUT),
    "nothing": LearnedIntervalConfig(),
}


def described(config):
    def quantizer(q):
        return q and (type(q), q.grid, q.mask_gradient, q.interval_gradient_scale)

    return config.kernel, quantizer(config.weight_quantizer), quantizer(config.output_quantizer)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_round_trips_through_json(name):
    copy = LearnedIntervalConfig.from_config(json.loads(json.dumps(CONFIGS[name].get_config())))
    assert described(copy) == described(CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_keras_finds_the_class_without_a_scope(name):
    packed = json.loads(json.dumps(tf_keras.utils.serialize_keras_object(CONFIGS[name])))
    copy = tf_keras.utils.deserialize_keras_object(packed)
    assert type(copy) is LearnedIntervalConfig
    assert described(copy) == described(CONFIGS[name])


@pytest.mark.parametrize("arguments", [{"kernel": "kernel"}, {"weight_quantizer": WEIGHTS}])
def test_kernel_without_quantizer_or_the_reverse_is_refused(arguments):
    with pytest.raises(ValueError, match="give both or neither"):
        LearnedIntervalConfig(**arguments)


@pytest.mark.parametrize(
    "layer, kernel",
    [
        (tf_keras.layers.Conv2D(2, 3), "kernel"),
        (tf_keras.layers.DepthwiseConv2D(3), "depthwise_kernel"),
        (tf_keras.layers.Dense(2), "kernel"),
    ],
    ids=["conv", "depthwise", "dense"],
)
def test_kernel_is_read_and_replaced_by_its_attribute(layer, kernel):
    layer.build((None, 4, 4, 3))
    config = LearnedIntervalConfig(kernel, WEIGHTS)
    ((variable, quantizer),) = config.get_weights_and_quantizers(layer)
    assert variable is getattr(layer, kernel)
    assert quantizer is WEIGHTS
    rounded = tf.zeros_like(variable)
    config.set_quantize_weights(layer, [rounded])
    assert getattr(layer, kernel) is rounded


def test_layer_without_kernel_has_only_its_output_quantized():
    config, relu = CONFIGS["output"], tf_keras.layers.ReLU()
    assert config.get_weights_and_quantizers(relu) == []
    assert config.get_activations_and_quantizers(relu) == []
    assert config.get_output_quantizers(relu) == [OUTPUT]
    assert CONFIGS["kernel"].get_output_quantizers(relu) == []


def test_wrapped_layer_computes_with_the_rounded_kernel_and_rounds_its_output():
    weights, output = LearnedIntervalQuantizer(weight_grid(2)), LearnedIntervalQuantizer(unsigned_grid(2))
    dense = tf_keras.layers.Dense(2, use_bias=True, name="dense")
    wrapped = quantize_wrapper.QuantizeWrapperV2(dense, LearnedIntervalConfig("kernel", weights, output))
    wrapped.build(tf.TensorShape((None, 2)))
    latent = dense.kernel
    latent.assign([[0.25, 1.0], [9.0, -0.75]])  # at interval 1.0: 0, 1 / 1, -1
    dense.bias.assign([0.25, 0.0])
    output.interval.assign(0.5)
    # [1, 0.5] @ kernel + bias = [0.75, 0.5] -> steps 1.5, 1 -> 2, 1
    assert wrapped(tf.constant([[1.0, 0.5]])).numpy().tolist() == [[1.0, 0.5]]
    np.testing.assert_array_equal(latent, [[0.25, 1.0], [9.0, -0.75]])  # the latent kernel stays unrounded


def test_batch_norm_that_carries_computes_as_before_and_rounds_its_output():
    output = ActivationQuantizer(unsigned_grid(2))
    layer = tf_keras.layers.BatchNormalization(name="bn", epsilon=0.0)
    wrapped = quantize_wrapper.QuantizeWrapperV2(layer, BatchNormConfig(output))
    wrapped.build(tf.TensorShape((None, 1, 1, 2)))
    gamma, beta = layer.gamma, layer.beta
    gamma.assign([2.0, 1.0])
    beta.assign([0.0, 5.0])
    assert {id(gamma), id(beta), id(output.interval)} == {id(v) for v in wrapped.trainable_variables}
    assert wrapped(tf.constant([[[[0.6, -9.0]]]]), training=False).numpy().tolist() == [[[[1.0, 0.0]]]]


def test_copy_of_a_carrying_config_carries_nothing_and_takes_its_own_sums():
    output = ActivationQuantizer(unsigned_grid(4), gradient_share=0.5)
    output.gradient_from_neighbors = True
    copy = BatchNormConfig.from_config(json.loads(json.dumps(BatchNormConfig(output).get_config())))
    assert type(copy) is LearnedIntervalConfig
    assert (copy.output_quantizer.gradient_from_neighbors, copy.output_quantizer.gradient_share) == (False, 0.5)
