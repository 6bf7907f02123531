"""TFMOT quantize config: which quantizers a layer carries."""

import tf_keras
from tensorflow_model_optimization.quantization.keras import QuantizeConfig

from qkd_tf.quantization.quantizers import LearnedIntervalQuantizer


@tf_keras.utils.register_keras_serializable("qkd_tf")
class LearnedIntervalConfig(QuantizeConfig):
    """A learned interval for a layer's kernel, for its output tensor, or for both.

    Args:
      kernel: attribute that holds the kernel ("kernel", "depthwise_kernel"); None where the layer has none.
      weight_quantizer: quantizer of the kernel; None with `kernel`.
      output_quantizer: quantizer of the tensor that the layer hands on; None where a later layer
        (BatchNormalization, ReLU) is folded into this one, or the tensor keeps its producer's grid.
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
            "weight_quantizer": self.weight_quantizer and self.weight_quantizer.get_config(),
            "output_quantizer": self.output_quantizer and self.output_quantizer.get_config(),
        }

    @classmethod
    def from_config(cls, config: dict) -> "LearnedIntervalConfig":
        def quantizer(row):
            return row and LearnedIntervalQuantizer.from_config(row)

        return cls(config["kernel"], quantizer(config["weight_quantizer"]), quantizer(config["output_quantizer"]))
