"""Quantization of a float student: plan -> TFMOT scheme -> student with learned intervals."""

import collections
import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_layout_transform,
    quantize_registry,
    quantize_scheme,
)
from tensorflow_model_optimization.quantization.keras import quantize_annotate_layer, quantize_apply, quantize_scope

from qkd_tf.console.counting import counted
from qkd_tf.contract.grid import IntegerGrid, TensorQuantParams, activation_params, weight_params
from qkd_tf.experiment import BITS_TO_TRAIN, QuantizationSpec, TrainingSpec, require
from qkd_tf.models.activations import activation_name, upper_end
from qkd_tf.models.classifier import classifier
from qkd_tf.models.copier import QUANTIZED
from qkd_tf.models.grouped import without_xla
from qkd_tf.quantization.fake_quant import round_average
from qkd_tf.quantization.plan import QuantizationPlan, make_plan, pixel_params
from qkd_tf.quantization.quantize_configs import BatchNormConfig, LearnedIntervalConfig
from qkd_tf.quantization.quantizers import ActivationQuantizer, KernelQuantizer, LearnedIntervalQuantizer
from qkd_tf.quantization.roles import LAYERS, averages_what_is_there, num_channel_axes, parents, producer, role
from qkd_tf.quantization.weight_normalization import is_normalizable, normalized


@dataclasses.dataclass(frozen=True)
class QuantizerImplementation:
    """How the quantizers of activations are computed (`fake_quant`).

    Attributes:
      fused: whether TensorFlow's own kernels compute them in few passes, instead of the definition.
      gradient_from_neighbors: whether gradients of intervals are taken from small tensors where possible.
    """

    fused: bool
    gradient_from_neighbors: bool

    def __post_init__(self):
        if self.gradient_from_neighbors and not self.fused:
            raise ValueError("the definition takes every sum itself: gradient_from_neighbors needs fused")


FLOAT32_IMPLEMENTATION = QuantizerImplementation(fused=True, gradient_from_neighbors=True)
# The two sums of dL/dI nearly cancel, and those of small tensors would have come through half precision apart.
MIXED_PRECISION_IMPLEMENTATION = QuantizerImplementation(fused=True, gradient_from_neighbors=False)
XLA_IMPLEMENTATION = QuantizerImplementation(
    fused=False, gradient_from_neighbors=False
)  # XLA fuses the definition, and has no such kernel


def quantizer_implementation(training: TrainingSpec) -> QuantizerImplementation:
    """The implementation for a kind of training."""
    if training.jit_compile or training.strategy == "tpu":
        return XLA_IMPLEMENTATION
    return FLOAT32_IMPLEMENTATION if training.mixed_precision == "float32" else MIXED_PRECISION_IMPLEMENTATION


class KeepLayout(quantize_layout_transform.QuantizeLayoutTransform):
    """Leaves the graph as it is: the float student already has the requantize layers."""

    def apply(self, model, layer_quantize_map):
        return model, layer_quantize_map


class PlanRegistry(quantize_registry.QuantizeRegistry):
    """Turns the plan's entry of a layer into its quantize config.

    Attributes:
      configs: config by layer name.
      weights: quantizers of kernels by layer name.
      outputs: quantizers of tensors by the name of the layer that outputs them. If a grid replaces that layer, a ReLU,
        the quantizer sits on the BatchNormalization before it.
    """

    def __init__(
        self, plan: QuantizationPlan, spec: QuantizationSpec, layers: list, implementation: QuantizerImplementation
    ):
        batch_norms = plan.batch_norms if implementation.gradient_from_neighbors else {}
        self.outputs: dict[str, LearnedIntervalQuantizer] = {}
        for layer in layers:
            if layer.name in plan.output_grids and role(layer) != "pixels":
                fused = {
                    "gradient_share": spec.interval_gradient_share,
                    "gradient_from_neighbors": layer.name in batch_norms,
                }
                end = upper_end(activation_name(layer)) if layer.name in plan.clipped_by_grid else None
                self.outputs[layer.name] = (ActivationQuantizer if implementation.fused else LearnedIntervalQuantizer)(
                    plan.output_grids[layer.name],
                    interval_gradient_scale=spec.interval_gradient_scale,
                    largest_value=end,
                    fixed_interval=plan.fixed.get(layer.name),
                    **(fused if implementation.fused else {"ewgs_scale": spec.ewgs_scale}),
                )
                if averages_what_is_there(layer):
                    self.outputs[layer.name].before = self._average_rounding(producer(parents(layer)[0]).name, layers)
        self.weights: dict[str, KernelQuantizer] = {}
        for layer in layers:
            if layer.name in plan.weight_grids:
                source = producer(parents(layer)[0]).name
                self.weights[layer.name] = KernelQuantizer(
                    plan.weight_grids[layer.name],
                    spec.mask_weight_gradient,
                    spec.interval_gradient_scale,
                    ewgs_scale=spec.ewgs_scale,
                    input_quantizer=self.outputs[source] if source in batch_norms else None,
                )
                if spec.normalize_weights != "off" and is_normalizable(layer, plan.weight_grids[layer.name]):
                    self.weights[layer.name].before = functools.partial(
                        normalized,
                        num_channel_axes=num_channel_axes(layer),
                        by_channel=spec.normalize_weights == "channel",
                    )

        self.configs: dict[str, LearnedIntervalConfig] = {
            batch_norm: BatchNormConfig(self.outputs[name]) for name, batch_norm in batch_norms.items()
        }
        for layer in layers:
            weight = self.weights.get(layer.name)
            output = self.outputs.get(layer.name) if layer.name not in batch_norms else None
            if weight or output:
                kernel = LAYERS[type(layer)].kernel if weight else None
                self.configs[layer.name] = LearnedIntervalConfig(kernel, weight, output)

    def _average_rounding(self, source: str, layers: list) -> Callable[[tf.Tensor], tf.Tensor]:
        """How AVERAGE_POOL_2D rounds an average of a tensor before that gets steps of its own."""
        if (quantizer := self.outputs.get(source)) is not None:
            return lambda x: round_average(
                x, tf.stop_gradient(quantizer.interval), quantizer.grid.activation_zero_point
            )
        (rescaling,) = [layer for layer in layers if layer.name == source]
        params = pixel_params(tf_keras.Model(rescaling.input, rescaling.output))
        return lambda x: round_average(x, params.scale, params.zero_point)

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
    """One tensor under a learned interval.

    Attributes:
      kernel: the latent weights that an optimizer updates, if the tensor is a kernel.
    """

    quantizer: LearnedIntervalQuantizer
    kernel: tf.Variable | None = None

    def values(self) -> tf.Tensor:
        """The kernel's values that are rounded: the latent weights, or those normalized."""
        return self.quantizer.before(self.kernel)

    @property
    def grid(self) -> IntegerGrid:
        return self.quantizer.grid

    @property
    def interval(self) -> tf.Variable:
        return self.quantizer.interval

    def params(self) -> TensorQuantParams:
        """Its present quantization parameters."""
        make = activation_params if self.kernel is None else weight_params
        return make(self.grid, float(self.interval.numpy()))


@dataclasses.dataclass(frozen=True)
class PlannedStudent:
    """A float student and the intervals of its tensors: what `calibration.calibrate` needs.

    Attributes:
      plain: float functional model of standard Keras layers, with an identity `Activation("linear")` where the plan
        requantizes.
      weights: quantized kernels by layer name.
      outputs: quantized tensors by name of the layer that outputs them.
      pixels: name of the layer that outputs the normalised pixels, and their parameters.
    """

    plain: tf_keras.Model
    weights: dict[str, QuantizedTensor]
    outputs: dict[str, QuantizedTensor]
    pixels: tuple[str, TensorQuantParams]


@dataclasses.dataclass(frozen=True)
class QuantizedStudent(PlannedStudent):
    """A float student and its twin with learned intervals; they share no variable.

    Attributes:
      model: the twin that trains quantized.
    """

    model: tf_keras.Model
    _twins: tuple[tuple[tf.Variable, tf.Variable], ...]

    def with_models(self, change: Callable[[tf_keras.Model], tf_keras.Model]) -> "QuantizedStudent":
        """The same student with changed models that keep its layers."""
        return dataclasses.replace(self, plain=change(self.plain), model=change(self.model))

    def float_copy(self) -> tf_keras.Model:
        """A copy of the present `plain`, with variables of its own."""
        copy = without_xla(tf_keras.models.clone_model(self.plain))
        copy.set_weights(self.plain.get_weights())
        return copy

    def copy_plain_from(self, other: "QuantizedStudent") -> None:
        """Copies the weights of another student's `plain`; the network is the same, the bit widths may differ."""
        for layer in other.plain.layers if other is not self else ():
            if layer.weights:  # requantizations, which may be others, have none
                self.plain.get_layer(layer.name).set_weights(layer.get_weights())

    @property
    def normalized(self) -> dict[str, Callable[[tf.Tensor], tf.Tensor]]:
        """How kernels are normalized before they are rounded, by layer name; of those that are."""
        quantizers = {name: weight.quantizer for name, weight in self.weights.items()}
        return {name: quantizer.before for name, quantizer in quantizers.items() if quantizer.before is not tf.identity}

    def notes_on_normalization(self, asked: str) -> list[str]:
        """A note on how many kernels are normalized, if `--normalize_weights` asks for it."""
        if asked == "off":
            return []
        kernels = counted(len(self.weights), "kernel")
        return [
            f"note: --normalize_weights={asked} applies to {len(self.normalized)} of {kernels}: those of less than 8 "
            "bits before a BatchNormalization that has gamma and is not frozen"
        ]

    def copy_weights_from_plain(self) -> None:
        for plain, latent in self._twins:
            latent.assign(plain)

    def copy_weights_to_plain(self) -> None:
        """Copies weights and BatchNorm statistics back to the float model, unrounded.

        Kernels come as they are before they are rounded, since BatchNorm statistics are theirs.
        """
        for plain, latent in self._twins:
            plain.assign(latent)
        for name in self.normalized:
            layer = self.plain.get_layer(name)
            getattr(layer, LAYERS[type(layer)].kernel).assign(self.weights[name].values())

    def tensor(self, name: str) -> tf.Tensor:
        """The symbolic tensor of `model` that corresponds to the output of layer `name` in `plain`."""
        layers = {layer.name: layer for layer in self.model.layers}
        layer = layers.get(f"{QUANTIZED}{name}") or layers[name]
        return layer.get_output_at(-1)  # TFMOT reuses layers that it does not wrap: the last use is the model's

    def twin(self, name: str) -> tf_keras.layers.Layer:
        """The layer of `model` that computes what layer `name` of `plain` does."""
        layers = {layer.name: layer for layer in self.model.layers}
        return layers[f"{QUANTIZED}{name}"].layer if f"{QUANTIZED}{name}" in layers else layers[name]

    @property
    def features(self) -> tuple[tf_keras.layers.Layer, QuantizedTensor]:
        """The layer of `model` that turns features into logits, and the quantizer of these features.

        Raises:
          ExperimentError: the layer reads pixels.
        """
        last = classifier(self.plain)
        source = producer(parents(last)[0]).name
        require(source in self.outputs, f"{last.name} reads pixels, and so has no features to learn from a teacher's")
        return self.twin(last.name), self.outputs[source]

    @property
    def trained_weights(self) -> list[tf.Variable]:
        """Latent weights of `model` that training updates: those of layers that are not frozen (trainable = False).

        TFMOT's wrapper lists every kernel among its trainable variables, even a frozen layer's.
        """
        trained = {variable.ref() for variable in self.plain.trainable_variables}
        latent = {latent.ref() for plain, latent in self._twins if plain.ref() in trained}
        return [variable for variable in self.model.trainable_variables if variable.ref() in latent]

    @property
    def weight_intervals(self) -> list[tf.Variable]:
        return [q.interval for q in self.weights.values()]

    @property
    def activation_intervals(self) -> list[tf.Variable]:
        """The learned intervals of activations."""
        return [q.interval for q in self.outputs.values() if q.interval.trainable]

    @property
    def trained_variables(self) -> list[tf.Variable]:
        """All that training updates in `model`: latent weights and intervals."""
        return [*self.trained_weights, *self.weight_intervals, *self.activation_intervals]

    def intervals(self) -> list[float]:
        """Intervals of kernels and tensors, in the order of `coverage`, without the pixels."""
        return [interval for *_, interval in self.coverage()[1:]]

    def coverage(self) -> list[tuple[str, str, int, float]]:
        """(layer, kind of tensor, bit width, interval) for each quantized tensor, in the model's order."""
        rows = [(self.pixels[0], "input", self.pixels[1].grid.num_bits, self.pixels[1].scale)]
        for layer in self.plain.layers:
            for what, tensors in (("kernel", self.weights), ("output", self.outputs)):
                if layer.name in tensors:
                    params = tensors[layer.name].params()
                    rows.append((layer.name, what, params.grid.num_bits, params.scale))
        return rows

    @property
    def needs_training(self) -> bool:
        """Whether some tensor has so few bits that training usually brings more than calibration."""
        return min(num_bits for *_, num_bits, _ in self.coverage()) <= BITS_TO_TRAIN

    def summary(self) -> str:
        """What is quantized to how many bits, in one line."""
        counts = collections.Counter((what, num_bits) for _, what, num_bits, _ in self.coverage())
        parts = [f"{counted(count, what)} at {bits} bits" for (what, bits), count in counts.items()]
        return f"quantized tensors of {self.plain.name}: " + ", ".join(parts)


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
    for layer in model.layers:
        if layer.name in copies:
            copies[layer.name].set_weights(layer.get_weights())
    return copy


@tf.autograph.experimental.do_not_convert  # Keras would look through every quantizer for control flow on tensors
def quantize_student(
    model: tf_keras.Model,
    spec: QuantizationSpec,
    implementation: QuantizerImplementation = FLOAT32_IMPLEMENTATION,
    plan: QuantizationPlan | None = None,
) -> QuantizedStudent:
    """Puts a learned interval on every kernel and tensor that the plan names. `model` is left unchanged.

    Intervals are 1.0 until `calibration.calibrate` has set them.

    Args:
      implementation: how the activations' quantizers are computed. With an interval_gradient_share of 1 all give the
        same; the definition always takes all examples. Only the definition has EWGS, so an ewgs_scale selects it.
      plan: the result of `make_plan`, if the caller already has it.

    Raises:
      ExperimentError: as `make_plan`.
    """
    plan = plan or make_plan(model, spec)
    plain = insert_requantize_layers(model, plan)
    registry = registry_of(plan, spec, plain, implementation)

    def annotate(layer):
        if layer.name in plan.clipped_by_grid:
            copy = tf_keras.layers.Activation("linear", name=layer.name)
        else:
            copy = type(layer).from_config(layer.get_config())
        return quantize_annotate_layer(copy) if registry.supports(layer) else copy

    with quantize_scope():
        annotated = tf_keras.models.clone_model(plain, clone_function=annotate)
        student = quantize_apply(annotated, scheme=LearnedIntervalScheme(registry))

    weights, twins = {}, []
    layers = {layer.name: layer for layer in student.layers}
    for layer in plain.layers:
        config = registry.configs.get(layer.name)
        latent = _by_role(layers[f"{QUANTIZED}{layer.name}" if config else layer.name].variables)
        twins += [(variable, latent[_role(variable)]) for variable in layer.variables]
        if layer.name in registry.weights:
            weights[layer.name] = QuantizedTensor(registry.weights[layer.name], latent[config.kernel])
    outputs = {name: QuantizedTensor(quantizer) for name, quantizer in registry.outputs.items()}
    quantized = QuantizedStudent(plain, weights, outputs, pixels_of(plan, plain), student, tuple(twins))
    quantized.copy_weights_from_plain()
    return quantized.with_models(without_xla)


def registry_of(
    plan: QuantizationPlan,
    spec: QuantizationSpec,
    plain: tf_keras.Model,
    implementation: QuantizerImplementation = FLOAT32_IMPLEMENTATION,
) -> PlanRegistry:
    """The quantizers of a plan, not yet built."""
    return PlanRegistry(plan, spec, plain.layers, XLA_IMPLEMENTATION if spec.ewgs_scale else implementation)


def pixels_of(plan: QuantizationPlan, plain: tf_keras.Model) -> tuple[str, TensorQuantParams]:
    """`PlannedStudent.pixels`: the only tensor with a grid that the network does not compute."""
    name = next(layer.name for layer in plain.layers if layer.name in plan.output_grids and role(layer) == "pixels")
    return name, pixel_params(plain)


def _role(variable: tf.Variable) -> str:
    """A variable's role in its layer: "kernel" for "conv1/kernel:0"."""
    return variable.name.split(":")[0].split("/")[-1]


def _by_role(variables) -> dict[str, tf.Variable]:
    return {_role(variable): variable for variable in variables}
