"""A quantized student that only predicts, built from its plan.

`quantize_student` builds one that trains, by TFMOT. That takes seconds for copies and wrappers, too long for trying
many plans. Here the float student's own layers are called on rounded tensors. Both compute the same, to the bit.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import tensorflow as tf
import tf_keras

from qkd_tf.experiment import QuantizationSpec
from qkd_tf.models.grouped import without_xla
from qkd_tf.quantization.plan import QuantizationPlan, make_plan
from qkd_tf.quantization.roles import LAYERS, parents
from qkd_tf.quantization.scheme import (
    PlannedStudent,
    QuantizedTensor,
    insert_requantize_layers,
    pixels_of,
    registry_of,
)

# Layers that do another thing in training.
MODAL = (tf_keras.layers.BatchNormalization, tf_keras.layers.Dropout)


@dataclasses.dataclass(frozen=True)
class QuantizedForward(PlannedStudent):
    """A float student, its tensors' intervals, and what it computes with them.

    Attributes:
      logits: pixels [N, H, W, C] uint8 -> [N, ..., K] float32, traced at its first call, for any N. Intervals are
        variables, read at each call.
    """

    logits: Callable[[tf.Tensor], tf.Tensor]


def quantized_forward(model: tf_keras.Model, spec: QuantizationSpec) -> QuantizedForward:
    """The forward pass of `quantize_student(model, spec)`; all intervals are 1.0 until they are set.

    Raises:
      ExperimentError: a layer that cannot become an integer operator.
    """
    plan = make_plan(model, spec)
    plain = without_xla(insert_requantize_layers(model, plan))
    registry, intervals = registry_of(plan, spec, plain), _Intervals()
    weights, outputs = {}, {}
    for name, quantizer in registry.weights.items():
        layer = plain.get_layer(name)
        kernel = getattr(layer, LAYERS[type(layer)].kernel)
        quantizer.build(kernel.shape, name, intervals)
        weights[name] = QuantizedTensor(quantizer, kernel)
    for name, quantizer in registry.outputs.items():
        quantizer.build(plain.get_layer(name).output_shape, name, intervals)
        outputs[name] = QuantizedTensor(quantizer)
    pixels = tf.TensorSpec([None, *plain.input_shape[1:]], tf.uint8)
    # Without a look for control flow, of which there is none.
    logits = tf.function(lambda x: _run(plain, plan, weights, outputs, x), input_signature=[pixels], autograph=False)
    return QuantizedForward(plain, weights, outputs, pixels_of(plan, plain), logits)


class _Intervals:
    """Stands in for the layer that keeps a quantizer's interval."""

    def add_weight(self, name, shape, initializer, constraint, trainable) -> tf.Variable:
        return tf.Variable(initializer(shape), name=name, trainable=trainable, constraint=constraint)


def _run(
    plain: tf_keras.Model,
    plan: QuantizationPlan,
    weights: dict[str, QuantizedTensor],
    outputs: dict[str, QuantizedTensor],
    pixels: tf.Tensor,
) -> tf.Tensor:
    tensors: dict[str, tf.Tensor] = {}
    for layer in plain.layers:
        read = [tensors[parent.name] for parent in parents(layer)]
        if not read:
            result = tf.cast(pixels, tf.float32)
        elif layer.name in plan.clipped_by_grid:
            (result,) = read
        else:
            with _rounded(layer, weights.get(layer.name)):
                mode = {"training": False} if isinstance(layer, MODAL) else {}
                result = layer.call(read if len(read) > 1 else read[0], **mode)
        tensors[layer.name] = _quantize(result, outputs[layer.name]) if layer.name in outputs else result
    (output,) = plain.output_names
    return tensors[output]


def _quantize(x: tf.Tensor, tensor: QuantizedTensor) -> tf.Tensor:
    return tensor.quantizer(x, training=False, weights={"interval": tensor.interval})


@contextlib.contextmanager
def _rounded(layer: tf_keras.layers.Layer, weight: QuantizedTensor | None) -> Iterator[None]:
    """A context in which a layer uses the rounded kernel, set without Keras, which would drop it from the weights."""
    if weight is None:
        yield
        return
    attribute = LAYERS[type(layer)].kernel
    object.__setattr__(layer, attribute, _quantize(weight.kernel, weight))
    try:
        yield
    finally:
        object.__setattr__(layer, attribute, weight.kernel)
