"""The student of a finished run as a tf_keras model, from its handoff."""

import pathlib

import tensorflow as tf
import tf_keras

from qkd_tf.contract.grid import IntegerGrid, TensorQuantParams, load_params
from qkd_tf.quantization.fake_quant import fake_quantize, round_average
from qkd_tf.quantization.roles import averages_what_is_there, parents, producer, role
from qkd_tf.storage import durable
from qkd_tf.storage.saved_model import load_model


@tf_keras.utils.register_keras_serializable("qkd_tf")
class OnGrid(tf_keras.layers.Layer):
    """A tensor on the integers of its grid: interval * round(clip(x / interval, qmin, qmax)).

    Args:
      interval: real value of one step.
      average_of: (interval, zero point) of the tensor of which x is an average; the operator first rounds to its steps.
        None if x is not an average.
    """

    def __init__(
        self,
        interval: float,
        num_bits: int,
        qmin: int,
        qmax: int,
        average_of: tuple[float, int] | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._options = {"interval": interval, "num_bits": num_bits, "qmin": qmin, "qmax": qmax}
        self._options["average_of"] = average_of
        self._grid = IntegerGrid(num_bits, qmin, qmax)

    def call(self, inputs):
        if average_of := self._options["average_of"]:
            inputs = round_average(inputs, tf.constant(average_of[0], tf.float32), average_of[1])
        return fake_quantize(inputs, tf.constant(self._options["interval"], tf.float32), self._grid)

    def get_config(self) -> dict:
        return super().get_config() | self._options


def trained_student(handoff: pathlib.Path) -> tf_keras.Model:
    """The quantized student in floating point: pixels [N, H, W, C], 0 to 255, to logits [N, K].

    Raises:
      OSError, DamageError: the handoff is missing, or was changed.
    """
    durable.check(handoff)
    saved, params = load_model(handoff / "student.keras"), load_params(handoff / "tensor_params.json")
    read = {layer.name: parents(layer) for layer in saved.layers}
    tensors: dict[str, tf.Tensor] = {}
    for layer in saved.layers:
        if isinstance(layer, tf_keras.layers.InputLayer):
            tensors[layer.name] = tf_keras.Input(saved.input_shape[1:], name=layer.name)
            continue
        inputs = [tensors[parent.name] for parent in read[layer.name]]
        output = layer(inputs if len(inputs) > 1 else inputs[0])
        if layer.name in params and role(layer) != "pixels":
            averaged = params[producer(read[layer.name][0]).name] if averages_what_is_there(layer) else None
            output = _on_grid(layer.name, params[layer.name], averaged)(output)
        tensors[layer.name] = output
    (output_name,) = saved.output_names
    return tf_keras.Model([tensors[name] for name in saved.input_names], tensors[output_name], name=saved.name)


def _on_grid(name: str, params: TensorQuantParams, averaged: TensorQuantParams | None) -> OnGrid:
    grid = params.grid
    average_of = None if averaged is None else (averaged.scale, averaged.zero_point)
    return OnGrid(params.scale, grid.num_bits, grid.qmin, grid.qmax, average_of, name=f"{name}_on_grid")
