"""Quantization of a float student: plan -> TFMOT scheme -> student with learned intervals."""

import collections
import dataclasses

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_layout_transform,
    quantize_registry,
    quantize_scheme,
)
from tensorflow_model_optimization.quantization.keras import quantize_annotate_layer, quantize_apply, quantize_scope

from qkd_tf.experiment import QuantizationSpec
from qkd_tf.quantization.grid import IntegerGrid, TensorQuantParams, activation_params, weight_params
from qkd_tf.quantization.plan import KERNELS, QuantizationPlan, make_plan, parents, pixel_params, role
from qkd_tf.quantization.quantize_configs import LearnedIntervalConfig
from qkd_tf.quantization.quantizers import LearnedIntervalQuantizer


class KeepLayout(quantize_layout_transform.QuantizeLayoutTransform):
    """Leaves the graph as it is: the requantize layers are in the float student already."""

    def apply(self, model, layer_quantize_map):
        return model, layer_quantize_map


class PlanRegistry(quantize_registry.QuantizeRegistry):
    """Turns the plan's entry of a layer into its quantize config.

    Attributes:
      configs: config by layer name.
    """

    def __init__(self, plan: QuantizationPlan, spec: QuantizationSpec, layers: list):
        def quantizer(grid: IntegerGrid, mask_gradient: bool = True):
            return LearnedIntervalQuantizer(grid, mask_gradient, spec.interval_gradient_scale)

        self.configs: dict[str, LearnedIntervalConfig] = {}
        for layer in layers:
            weight, output = plan.weight_grids.get(layer.name), plan.output_grids.get(layer.name)
            if role(layer) != "pixels" and (weight or output):
                self.configs[layer.name] = LearnedIntervalConfig(
                    kernel=KERNELS[type(layer)] if weight else None,
                    weight_quantizer=weight and quantizer(weight, spec.mask_weight_gradient),
                    output_quantizer=output and quantizer(output),
                )

    def supports(self, layer) -> bool:
        return layer.name in self.configs

    def get_quantize_config(self, layer) -> LearnedIntervalConfig:
        return self.configs[layer.name]


class LearnedIntervalScheme(quantize_scheme.QuantizeScheme):
    """TFMOT scheme: no layout transform, learned intervals where the plan has a grid."""

    def __init__(self, registry: PlanRegistry):
        self._registry = registry

    def get_layout_transformer(self):
        return KeepLayout()

    def get_quantize_registry(self):
        return self._registry


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """One tensor under a learned interval."""

    quantizer: LearnedIntervalQuantizer
    kernel: tf.Variable | None = None

    @property
    def grid(self) -> IntegerGrid:
        return self.quantizer.grid

    @property
    def interval(self) -> tf.Variable:
        return self.quantizer.interval

    def params(self) -> TensorQuantParams:
        """Parameters of this moment."""
        make = activation_params if self.kernel is None else weight_params
        return make(self.grid, float(self.interval.numpy()))


@dataclasses.dataclass(frozen=True)
class QuantizedStudent:
    """A float student and its twin with learned intervals; they share no variable.

    Attributes:
      plain: float functional model of standard Keras layers; where the plan requantizes a tensor
        it holds an identity `Activation("linear")`.
      model: the twin that trains quantized.
      weights: quantized kernels by layer name.
      outputs: quantized tensors by name of the layer that hands them on.
      pixels: name of the layer that hands on the normalised pixels, and their parameters.
    """

    plain: tf_keras.Model
    model: tf_keras.Model
    weights: dict[str, QuantizedTensor]
    outputs: dict[str, QuantizedTensor]
    pixels: tuple[str, TensorQuantParams]
    _twins: tuple[tuple[tf.Variable, tf.Variable], ...]

    def copy_weights_from_plain(self) -> None:
        for plain, latent in self._twins:
            latent.assign(plain)

    def copy_weights_to_plain(self) -> None:
        """Hands latent weights and BatchNorm statistics back to the float model, unrounded."""
        for plain, latent in self._twins:
            plain.assign(latent)

    @property
    def weight_intervals(self) -> list[tf.Variable]:
        return [q.interval for q in self.weights.values()]

    @property
    def activation_intervals(self) -> list[tf.Variable]:
        return [q.interval for q in self.outputs.values()]

    def coverage(self) -> list[tuple[str, str, int, float]]:
        """(layer, what of it, bit width, interval) for each quantized tensor, in the model's order."""
        rows = [(self.pixels[0], "input", self.pixels[1].grid.num_bits, self.pixels[1].scale)]
        for layer in self.plain.layers:
            for what, tensors in (("kernel", self.weights), ("output", self.outputs)):
                if layer.name in tensors:
                    params = tensors[layer.name].params()
                    rows.append((layer.name, what, params.grid.num_bits, params.scale))
        return rows

    def summary(self) -> str:
        """What is quantized to how many bits, in one line."""
        counts = collections.Counter((what, num_bits) for _, what, num_bits, _ in self.coverage())
        parts = [f"{count} {what}{'s' * (count > 1)} at {bits} bits" for (what, bits), count in counts.items()]
        return f"{self.plain.name} quantizes " + ", ".join(parts)


def insert_requantize_layers(model: tf_keras.Model, plan: QuantizationPlan) -> tf_keras.Model:
    """A copy of the float model, weights included, with an identity layer at each requantization."""
    tensors: dict[str, tf.Tensor] = {}

    def read(producer: str, consumer: str):
        requantize = plan.requantized.get((producer, consumer))
        if requantize is None:
            return tensors[producer]
        if requantize not in tensors:
            tensors[requantize] = tf_keras.layers.Activation("linear", name=requantize)(tensors[producer])
        return tensors[requantize]

    copies = {}
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.InputLayer):
            tensors[layer.name] = tf_keras.Input(model.input_shape[1:], name=layer.name)
            continue
        copies[layer.name] = type(layer).from_config(layer.get_config())
        inputs = [read(parent.name, layer.name) for parent in parents(layer)]
        tensors[layer.name] = copies[layer.name](inputs if len(inputs) > 1 else inputs[0])
    copy = tf_keras.Model(
        [tensors[name] for name in model.input_names], [tensors[name] for name in model.output_names], name=model.name
    )
    for name, layer in copies.items():
        layer.set_weights(model.get_layer(name).get_weights())
    return copy


def quantize_student(model: tf_keras.Model, spec: QuantizationSpec) -> QuantizedStudent:
    """Puts a learned interval on every kernel and tensor that the plan names. `model` is left as it is.

    Intervals are 1.0 until `calibration.calibrate` has set them.

    Raises:
      ExperimentError: a layer that cannot become an integer operator.
    """
    plan = make_plan(model, spec)
    plain = insert_requantize_layers(model, plan)
    registry = PlanRegistry(plan, spec, plain.layers)

    def annotate(layer):
        copy = type(layer).from_config(layer.get_config())
        return quantize_annotate_layer(copy) if registry.supports(layer) else copy

    with quantize_scope():
        annotated = tf_keras.models.clone_model(plain, clone_function=annotate)
        student = quantize_apply(annotated, scheme=LearnedIntervalScheme(registry))

    weights, outputs, twins = {}, {}, []
    for layer in plain.layers:
        config = registry.configs.get(layer.name)
        twin = student.get_layer(f"quant_{layer.name}" if config else layer.name)
        latent = _by_role(twin.variables)
        twins += [(variable, latent[_role(variable)]) for variable in layer.variables]
        if config and config.weight_quantizer:
            weights[layer.name] = QuantizedTensor(config.weight_quantizer, latent[config.kernel])
        if config and config.output_quantizer:
            outputs[layer.name] = QuantizedTensor(config.output_quantizer)
    (pixels,) = set(plan.output_grids) - set(outputs)
    quantized = QuantizedStudent(plain, student, weights, outputs, (pixels, pixel_params(plain)), tuple(twins))
    quantized.copy_weights_from_plain()
    return quantized


def _role(variable: tf.Variable) -> str:
    """What a variable is to its layer: "kernel" of "conv1/kernel:0"."""
    return variable.name.split(":")[0].split("/")[-1]


def _by_role(variables) -> dict[str, tf.Variable]:
    return {_role(variable): variable for variable in variables}
