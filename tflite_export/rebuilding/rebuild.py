"""The plain Keras student and its parameters as a graph of TFLite's integer operators.

A layer with quantization parameters of its own ends an operator; BatchNormalization and ReLU before it belong to that
operator. Only the bias is rounded here, in `fold`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tf_keras

from qkd_tf.contract.batch_norm import BatchNorm
from qkd_tf.contract.grid import AVERAGE_CODE, INT8_MIN, TensorQuantParams, dequantize, quantize, slope_params
from qkd_tf.storage.archive import first_line
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.graph import IntegerGraph, Operator, Tensor, constant
from tflite_export.load import Handoff
from tflite_export.rebuilding.fold import fold
from tflite_export.rebuilding.ratios import check_ratios

SIGNATURE_KEY = "serving_default"
CLIPS = ("QUANTIZE", "MAXIMUM")
_layers = tf_keras.layers


@dataclasses.dataclass
class _FoldedLayers:
    """Layers that become one operator: the root, and what is folded into it."""

    root: tf_keras.layers.Layer
    inputs: list[str]
    batch_norm: tf_keras.layers.BatchNormalization | None = None
    activation: str = "NONE"


def rebuild(handoff: Handoff, input_type: str = "int8", clip: str = "QUANTIZE") -> IntegerGraph:
    """The integer graph that the .tflite must hold, with tensors named after the layers that output them.

    Args:
      input_type: "int8" takes pixel - 128, "uint8" takes pixels.
      clip: one of CLIPS, the operator that clips the end of a grid that saturation and a fused RELU do not clip.

    Raises:
      ExportError: a layer has no integer operator, a scale is one that none can hold, or parameters fit no layer.
    """
    try:
        graph = _Rebuilder(handoff, input_type, clip).graph
        check_ratios(graph)
    except ExportError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ExportError(f"the handoff contradicts itself ({reason}); run python -m qkd_tf.train again") from error
    return graph


class _Rebuilder:
    def __init__(self, handoff: Handoff, input_type: str, clip: str):
        self.handoff, self.clip = handoff, clip
        self.graph = IntegerGraph()
        self.tensor_of: dict[str, str] = {}  # layer name -> tensor name
        open_operators: dict[str, _FoldedLayers] = {}
        for layer in handoff.student.layers:
            parents = _parents(layer)
            if type(layer) in PASS:
                self.tensor_of[layer.name] = self._pass(layer, self.tensor_of[parents[0]])
                continue
            if parents and parents[0] in open_operators:
                operator = _folded(open_operators[parents[0]], layer)
            else:
                operator = _FoldedLayers(layer, [self.tensor_of[p] for p in parents], activation=_activation(layer))
            if layer.name not in handoff.tensor_params:
                open_operators[layer.name] = operator
            elif isinstance(operator.root, _layers.InputLayer):
                self.tensor_of[layer.name] = self._input(layer.name, operator.root, input_type)
            else:
                self.tensor_of[layer.name] = self._close(layer, operator)
        (output,) = handoff.student.output_names
        self.graph.output = self.tensor_of[output]
        self.graph.signature = {
            f"{SIGNATURE_KEY}/pixels": self.graph.input,
            f"{SIGNATURE_KEY}/logits": self.graph.output,
        }

    def _input(self, name: str, root: tf_keras.layers.InputLayer, input_type: str) -> str:
        params = self.handoff.tensor_params[name]
        shape = _shape(root)
        if input_type == "int8":
            self.graph.input = self._activation(name, shape, params)
            return self.graph.input
        scales = np.array([params.scale], np.float32)
        pixels = Tensor(f"{name}/uint8", shape, "uint8", scales, params.zero_point - INT8_MIN)
        self.graph.input = self.graph.add_tensor(pixels)
        return self._emit("QUANTIZE", [self.graph.input], self._activation(name, shape, params))

    def _close(self, layer: tf_keras.layers.Layer, operator: _FoldedLayers) -> str:
        """Emits an open operator with the output of `layer`, clipped to its grid at both ends."""
        emit = EMITTERS.get(type(operator.root))
        if emit is None:
            raise ExportError(f"layer {operator.root.name}: no operator for {type(operator.root).__name__}")
        params = self.handoff.tensor_params[layer.name]
        relu_alone = operator.activation != "NONE" and type(operator.root) in (_layers.ReLU, _layers.Activation)
        written = params.written_zero_point(relu_alone)
        clipped = self._activation(layer.name, _shape(layer), params)
        if written == params.zero_point:
            emit(self, operator, clipped, params)
            return clipped
        # How runtimes round an average depends on its zero point, and training predicts that of the first.
        if self.clip == "QUANTIZE" or type(operator.root) in AVERAGES:
            return self._clip_by_quantize(layer, operator, dataclasses.replace(params, zero_point=written), clipped)
        return self._clip_by_maximum(layer, operator, params, clipped)

    def _clip_by_quantize(
        self, layer: tf_keras.layers.Layer, operator: _FoldedLayers, written: TensorQuantParams, clipped: str
    ) -> str:
        """Saturation clips the bottom, and after QUANTIZE has changed the zero point, the top, too."""
        output = self._activation(f"{layer.name}/clipped_below", _shape(layer), written)
        EMITTERS[type(operator.root)](self, operator, output, written)
        return self._emit("QUANTIZE", [output], clipped)

    def _clip_by_maximum(
        self, layer: tf_keras.layers.Layer, operator: _FoldedLayers, params: TensorQuantParams, clipped: str
    ) -> str:
        output = self._activation(f"{layer.name}/unclipped", _shape(layer), params)
        EMITTERS[type(operator.root)](self, operator, output, params)
        minimum = np.array([params.stored_min], np.int8)
        floor = constant(f"{layer.name}/minimum", minimum, [params.scale], params.zero_point)
        return self._emit("MAXIMUM", [output, self.graph.add_tensor(floor)], clipped)

    def _convolution(self, operator: _FoldedLayers, output: str, params: TensorQuantParams) -> None:
        layer = operator.root
        kernel, bias = self._kernel(operator, params)
        depthwise = isinstance(layer, _layers.DepthwiseConv2D)
        self._emit(
            CONVOLUTIONS[type(layer)],
            [operator.inputs[0], kernel, bias],
            output,
            padding=layer.padding.upper(),
            stride_h=layer.strides[0],
            stride_w=layer.strides[1],
            dilation_h=layer.dilation_rate[0],
            dilation_w=layer.dilation_rate[1],
            activation=operator.activation,
            **({"depth_multiplier": layer.depth_multiplier} if depthwise else {}),
        )

    def _dense(self, operator: _FoldedLayers, output: str, params: TensorQuantParams) -> None:
        kernel, bias = self._kernel(operator, params)
        self._emit(
            "FULLY_CONNECTED",
            [operator.inputs[0], kernel, bias],
            output,
            activation=operator.activation,
            keep_num_dims=False,
        )

    def _kernel(self, operator: _FoldedLayers, params: TensorQuantParams) -> tuple[str, str]:
        """Adds the folded kernel and bias of a compute layer."""
        layer = operator.root
        transpose, axis = KERNEL_LAYOUTS[type(layer)]
        codes = self.handoff.weights[layer.name]
        depthwise = isinstance(layer, _layers.DepthwiseConv2D)
        codes = codes.reshape(*codes.shape[:2], -1) if depthwise else codes  # output channel last
        input_scale = float(self.graph.tensors[operator.inputs[0]].scales[0])
        weight_params = self.handoff.weight_params[layer.name]
        bias = layer.bias.numpy() if layer.use_bias else np.zeros(codes.shape[-1], np.float32)
        folded = fold(
            layer.name,
            codes,
            weight_params.scale,
            weight_params.grid.weight_shift,
            bias,
            _batch_norm(operator.batch_norm),
            input_scale,
            params.scale,
        )
        if folded.dead_channels:
            channels = ", ".join(map(str, folded.dead_channels))
            self.graph.notes.append(
                f"layer {layer.name}: BatchNorm makes channels {channels} constant; stored as zeros"
            )
        data = folded.codes[np.newaxis] if depthwise else folded.codes
        kernel = constant(
            f"{layer.name}/kernel",
            np.ascontiguousarray(data.transpose(transpose)),
            folded.scales,
            axis=axis if len(folded.scales) > 1 else None,
        )
        bias_scales = np.float32(input_scale) * folded.scales
        bias = constant(f"{layer.name}/bias", folded.bias, bias_scales, axis=0 if len(bias_scales) > 1 else None)
        return self.graph.add_tensor(kernel), self.graph.add_tensor(bias)

    def _add(self, operator: _FoldedLayers, output: str, params: TensorQuantParams) -> None:
        self._emit("ADD", operator.inputs, output, activation=operator.activation)

    def _multiply(self, operator: _FoldedLayers, output: str, params: TensorQuantParams) -> None:
        self._emit("MUL", operator.inputs, output, activation="NONE")

    def _own_activation(self, operator: _FoldedLayers, output: str, params: TensorQuantParams) -> None:
        """Emits a sigmoid, or a change of grid at a linear layer or a ReLU."""
        self._emit("LOGISTIC" if _function(operator.root) == "sigmoid" else "QUANTIZE", operator.inputs, output)

    def _leaky_relu(self, operator: _FoldedLayers, output: str, params: TensorQuantParams) -> None:
        self._emit("LEAKY_RELU", operator.inputs, output, alpha=float(operator.root.alpha))

    def _prelu(self, operator: _FoldedLayers, output: str, params: TensorQuantParams) -> None:
        slopes = operator.root.alpha.numpy()
        stored = slope_params(slopes)
        codes = quantize(slopes, stored)
        if not np.allclose(dequantize(codes, stored), slopes, rtol=1e-6, atol=0):
            raise ValueError(f"the slopes of layer {operator.root.name} are not on their steps")
        data = constant(f"{operator.root.name}/slopes", codes, [stored.scale])
        self._emit("PRELU", [*operator.inputs, self.graph.add_tensor(data)], output)

    def _average(self, operator: _FoldedLayers, output: str, params: TensorQuantParams) -> None:
        """Emits an average: a MEAN over the whole map; for windows a depthwise convolution with equal weights.

        AVERAGE_POOL_2D would round to its input's steps, but the output has a grid of its own.
        """
        layer, source = operator.root, self.graph.tensors[operator.inputs[0]]
        if getattr(layer, "padding", "valid") == "same":
            return self._average_what_is_there(layer, source, output)
        window = getattr(layer, "pool_size", source.shape[1:3])
        if tuple(window) == source.shape[1:3]:
            return self._mean(operator, output)
        self._average_windows(layer, window, source, output)

    def _average_windows(
        self, layer: tf_keras.layers.Layer, window: Sequence[int], source: Tensor, output: str
    ) -> None:
        codes = np.full((1, *window, source.shape[3]), AVERAGE_CODE, np.int8)
        scale = np.float32(1 / (AVERAGE_CODE * window[0] * window[1]))
        kernel = self.graph.add_tensor(constant(f"{layer.name}/kernel", codes, [scale]))
        zeros = np.zeros(source.shape[3], np.int32)
        bias = self.graph.add_tensor(constant(f"{layer.name}/bias", zeros, [source.scales[0] * scale]))
        self._emit(
            "DEPTHWISE_CONV_2D",
            [source.name, kernel, bias],
            output,
            padding=layer.padding.upper(),
            stride_h=layer.strides[0],
            stride_w=layer.strides[1],
            dilation_h=1,
            dilation_w=1,
            depth_multiplier=1,
            activation="NONE",
        )

    def _average_what_is_there(self, layer: tf_keras.layers.Layer, source: Tensor, output: str) -> None:
        """Emits an AVERAGE_POOL_2D, which leaves padding out and keeps its input's steps, then a requantization."""
        shape = self.graph.tensors[output].shape
        pooled = self.graph.add_tensor(dataclasses.replace(source, name=f"{layer.name}/average", shape=shape))
        self._emit(
            "AVERAGE_POOL_2D",
            [source.name],
            pooled,
            padding="SAME",
            stride_h=layer.strides[0],
            stride_w=layer.strides[1],
            filter_h=layer.pool_size[0],
            filter_w=layer.pool_size[1],
            activation="NONE",
        )
        self._emit("QUANTIZE", [pooled], output)

    def _mean(self, operator: _FoldedLayers, output: str) -> None:
        axes = self.graph.add_tensor(constant(f"{operator.root.name}/axes", np.array([1, 2], np.int32)))
        self._emit("MEAN", [operator.inputs[0], axes], output, keep_dims=len(self.graph.tensors[output].shape) == 4)

    def _concatenate(self, operator: _FoldedLayers, output: str, params: TensorQuantParams) -> None:
        """int8 CONCATENATION copies integers, so each input is first brought to the output's grid."""
        parts = []
        for index, name in enumerate(operator.inputs):
            part = self._activation(f"{operator.root.name}/input{index}", self.graph.tensors[name].shape, params)
            parts.append(self._emit("QUANTIZE", [name], part))
        axis = operator.root.axis % len(self.graph.tensors[output].shape)
        self._emit("CONCATENATION", parts, output, axis=axis, activation="NONE")

    def _pass(self, layer: tf_keras.layers.Layer, source: str) -> str:
        """Emits a layer that moves integers: its output keeps its input's parameters."""
        emit = PASS[type(layer)]
        return source if emit is None else emit(self, layer, source)

    def _max_pool(self, layer: tf_keras.layers.Layer, source: str) -> str:
        if tuple(layer.pool_size) == (1, 1):  # a choice of pixels; XNNPACK takes it as an average, with equal results
            output = self._like(layer, source)
            self._average_windows(layer, (1, 1), self.graph.tensors[source], output)
            return output
        return self._emit(
            "MAX_POOL_2D",
            [source],
            self._like(layer, source),
            padding=layer.padding.upper(),
            stride_h=layer.strides[0],
            stride_w=layer.strides[1],
            filter_h=layer.pool_size[0],
            filter_w=layer.pool_size[1],
            activation="NONE",
        )

    def _pad(self, layer: tf_keras.layers.Layer, source: str) -> str:
        spatial = [list(pair) for pair in layer.padding]
        last = layer.data_format == "channels_first"  # pads the last two axes of [N, H, W, C]
        pads = [[0, 0], [0, 0], *spatial] if last else [[0, 0], *spatial, [0, 0]]
        paddings = self.graph.add_tensor(constant(f"{layer.name}/paddings", np.array(pads, np.int32)))
        return self._emit("PAD", [source, paddings], self._like(layer, source))

    def _crop(self, layer: tf_keras.layers.Layer, source: str) -> str:
        output = self._like(layer, source)
        (top, _), (left, _) = layer.cropping
        begin, size = np.array([0, top, left, 0], np.int32), np.array(_shape(layer), np.int32)
        names = [
            self.graph.add_tensor(constant(f"{layer.name}/{what}", values))
            for what, values in (("begin", begin), ("size", size))
        ]
        return self._emit("SLICE", [source, *names], output)

    def _up_sample(self, layer: tf_keras.layers.Layer, source: str) -> str:
        """Emits up-sampling with half-pixel centres, so that no rounded ratio decides which pixel is nearest."""
        sides = self.graph.add_tensor(constant(f"{layer.name}/sides", np.array(_shape(layer)[1:3], np.int32)))
        output = self._like(layer, source)
        return self._emit("RESIZE_NEAREST_NEIGHBOR", [source, sides], output, half_pixel_centers=True)

    def _reshape(self, layer: tf_keras.layers.Layer, source: str) -> str:
        shape = self.graph.add_tensor(constant(f"{layer.name}/shape", np.array(_shape(layer), np.int32)))
        return self._emit("RESHAPE", [source, shape], self._like(layer, source))

    def _activation(self, name: str, shape: tuple[int, ...], params: TensorQuantParams) -> str:
        scales = np.array([params.scale], np.float32)
        return self.graph.add_tensor(Tensor(name, shape, "int8", scales, params.zero_point))

    def _like(self, layer: tf_keras.layers.Layer, source: str) -> str:
        return self.graph.add_tensor(
            dataclasses.replace(self.graph.tensors[source], name=layer.name, shape=_shape(layer))
        )

    def _emit(self, kind: str, inputs: Sequence[str], output: str, **options: int | float | bool | str) -> str:
        self.graph.operators.append(Operator(kind, tuple(inputs), output, options))
        return output


AVERAGES = (_layers.GlobalAveragePooling2D, _layers.AveragePooling2D)
CONVOLUTIONS = {_layers.Conv2D: "CONV_2D", _layers.DepthwiseConv2D: "DEPTHWISE_CONV_2D"}
# From "output channel last" to TFLite's layout, and the axis of the channel there.
KERNEL_LAYOUTS = {
    _layers.Conv2D: ((3, 0, 1, 2), 0),
    _layers.DepthwiseConv2D: ((0, 1, 2, 3), 3),
    _layers.Dense: ((1, 0), 0),
}
EMITTERS: Mapping[type, Callable[[_Rebuilder, _FoldedLayers, str, TensorQuantParams], None]] = {
    _layers.Conv2D: _Rebuilder._convolution,
    _layers.DepthwiseConv2D: _Rebuilder._convolution,
    _layers.Dense: _Rebuilder._dense,
    _layers.Add: _Rebuilder._add,
    _layers.GlobalAveragePooling2D: _Rebuilder._average,
    _layers.AveragePooling2D: _Rebuilder._average,
    _layers.Activation: _Rebuilder._own_activation,
    _layers.ReLU: _Rebuilder._own_activation,
    _layers.LeakyReLU: _Rebuilder._leaky_relu,
    _layers.PReLU: _Rebuilder._prelu,
    _layers.Multiply: _Rebuilder._multiply,
    _layers.Concatenate: _Rebuilder._concatenate,
}
PASS: Mapping[type, Callable[[_Rebuilder, tf_keras.layers.Layer, str], str] | None] = {
    _layers.MaxPooling2D: _Rebuilder._max_pool,
    _layers.ZeroPadding2D: _Rebuilder._pad,
    _layers.Cropping2D: _Rebuilder._crop,
    _layers.UpSampling2D: _Rebuilder._up_sample,
    _layers.Flatten: _Rebuilder._reshape,
    _layers.Reshape: _Rebuilder._reshape,
    _layers.Dropout: None,
}


ACTIVATIONS = ("NONE", "RELU", "RELU6")  # of two in a row the later one here is what both make


def _folded(operator: _FoldedLayers, layer: tf_keras.layers.Layer) -> _FoldedLayers:
    """The open operator with one more layer folded in."""
    if isinstance(layer, _layers.BatchNormalization):
        return dataclasses.replace(operator, batch_norm=layer)
    narrower = max(operator.activation, _activation(layer), key=ACTIVATIONS.index)
    return dataclasses.replace(operator, activation=narrower)


def _activation(layer: tf_keras.layers.Layer) -> str:
    """TFLite's fused activation for the function that a layer applies."""
    if isinstance(layer, _layers.ReLU):
        return "RELU6" if layer.max_value == 6 else "RELU"
    return {"linear": "NONE", "relu": "RELU", "relu6": "RELU6", "sigmoid": "NONE"}[_function(layer)]


def _function(layer: tf_keras.layers.Layer) -> str:
    """Name of a layer's activation function, "linear" if it has none."""
    function = getattr(layer, "activation", None)
    return tf_keras.activations.serialize(function) if function else "linear"


def _batch_norm(layer: tf_keras.layers.BatchNormalization | None) -> BatchNorm | None:
    if layer is None:
        return None
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    gamma = layer.gamma.numpy() if layer.scale else np.ones_like(mean)
    beta = layer.beta.numpy() if layer.center else np.zeros_like(mean)
    return BatchNorm(gamma, beta, mean, variance, layer.epsilon)


def _parents(layer: tf_keras.layers.Layer) -> list[str]:
    inbound = layer.inbound_nodes[0].inbound_layers if layer.inbound_nodes else []
    return [parent.name for parent in (inbound if isinstance(inbound, list) else [inbound])]


def _shape(layer: tf_keras.layers.Layer) -> tuple[int, ...]:
    """Output shape for a batch of one."""
    shape = layer.output_shape[0] if isinstance(layer, _layers.InputLayer) else layer.output_shape
    return (1, *shape[1:])
