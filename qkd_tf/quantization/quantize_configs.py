"""TFMOT quantize configs: which quantizers a layer has."""

import tf_keras
from tensorflow_model_optimization.quantization.keras import QuantizeConfig

from qkd_tf.quantization.quantizers import ActivationQuantizer, IntervalGradient, LearnedIntervalQuantizer

_pack = tf_keras.utils.serialize_keras_object
_unpack = tf_keras.utils.deserialize_keras_object


@tf_keras.utils.register_keras_serializable("qkd_tf")
class LearnedIntervalConfig(QuantizeConfig):
    """A learned interval for a layer's kernel, for its output tensor, or for both.

    Args:
      kernel: attribute that holds the kernel ("kernel", "depthwise_kernel"); None if the layer has none.
      weight_quantizer: quantizer of the kernel; None if `kernel` is.
      output_quantizer: quantizer of the layer's output; None if a later layer (BatchNormalization, ReLU) is folded into
        this one, or if the tensor keeps its producer's grid.
    """

    def __init__(
        self,
        kernel: str | None = None,
        weight_quantizer: LearnedIntervalQuantizer | None = None,
        output_quantizer: LearnedIntervalQuantizer | None = None,
    ):
        if (kernel is None) != (weight_quantizer is None):
            raise ValueError("kernel and weight_quantizer go together: give both or neither")
        self.kernel = kernel
        self.weight_quantizer = weight_quantizer
        self.output_quantizer = output_quantizer

    def get_weights_and_quantizers(self, layer):
        return [(getattr(layer, self.kernel), self.weight_quantizer)] if self.kernel else []

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        if self.kernel:
            setattr(layer, self.kernel, quantize_weights[0])

    def set_quantize_activations(self, layer, quantize_activations):
        del layer, quantize_activations  # activations are quantized on the tensors between layers

    def get_output_quantizers(self, layer):
        return [self.output_quantizer] if self.output_quantizer else []

    def get_config(self) -> dict:
        return {
            "kernel": self.kernel,
            "weight_quantizer": self.weight_quantizer and _pack(self.weight_quantizer),
            "output_quantizer": self.output_quantizer and _pack(self.output_quantizer),
        }

    @classmethod
    def from_config(cls, config: dict):
        return cls(**{name: _unpack(value) if isinstance(value, dict) else value for name, value in config.items()})


@tf_keras.utils.register_keras_serializable("qkd_tf")
class BatchNormConfig(LearnedIntervalConfig):
    """A learned interval for a BatchNormalization's output, whose gamma and beta contribute to its gradient.

    A copy by config is a `LearnedIntervalConfig`, because the contributions need their counterparts in other layers.
    """

    WEIGHTS = ("gamma", "beta")

    def __init__(self, output_quantizer: ActivationQuantizer):
        super().__init__(output_quantizer=output_quantizer)

    def get_weights_and_quantizers(self, layer):
        return [(getattr(layer, name), IntervalGradient(self.output_quantizer)) for name in self.WEIGHTS]

    def set_quantize_weights(self, layer, quantize_weights):
        for name, weight in zip(self.WEIGHTS, quantize_weights, strict=True):
            setattr(layer, name, weight)

    @classmethod
    def from_config(cls, config: dict) -> LearnedIntervalConfig:
        return LearnedIntervalConfig.from_config(config)
