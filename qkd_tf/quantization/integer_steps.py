"""Rounds in the student itself what integer operators can represent only in steps.

Rounding only at export would make the file another network than the one that was evaluated.

* An integer convolution adds its bias to the int32 sum, so a bias is a whole number of steps of input interval * weight
  interval (times BatchNorm's scale) / 2^weight_shift. At 8 bits that grid is too fine to matter. At 2 bits a layer's
  sums may have a standard deviation of only seven times input interval * weight interval; only the shift of stored
  weights makes biases fine enough.
* LiteRT's default QUANTIZE (XNNPACK) multiplies by input interval / output interval as a whole number of 256ths. From
  an 8-bit residual tensor to 4 bits that is about 13/256, so the ratio would be several percent off.
* Its LEAKY_RELU does the same, with another number of 256ths for negative values.
* The slopes of a PRELU are 8-bit integers with one scale.
* TensorFlow Lite for Microcontrollers and NPUs round twice when they rescale a sum. At few bits the first rounding
  lifts a ReLU's input by up to a quarter of a step (`lift_by_rounding_twice`); biases subtract that.
"""

import numpy as np
import tf_keras

from qkd_tf.contract.grid import TensorQuantParams, fake_quantize, slope_params
from qkd_tf.contract.kinds import REQUANTIZED
from qkd_tf.quantization.roles import averages_what_is_there, batch_norm_of, has_slope, is_sigmoid, parents, producer
from qkd_tf.quantization.scheme import QuantizedStudent, QuantizedTensor

INT32_MAX = 2**31 - 1
RATIO_STEPS = 256
# Beside an exact ratio, so that training's round half to even decides a tie as XNNPACK does: upward.
TIE_SHADE = 2.0**-20


def put_on_integer_steps(student: QuantizedStudent, rounds_twice: bool = False) -> None:
    """Moves intervals of requantized tensors, then slopes and biases, to what integer operators can hold.

    Args:
      rounds_twice: `Target.rounds_twice` of the student's device. A second call would subtract the lift again.
    """
    round_requantizations(student)
    round_slopes(student)
    round_biases(student, rounds_twice)


def round_requantizations(student: QuantizedStudent) -> None:
    """Makes the ratio of intervals at each requantization a whole number of 256ths.

    Requantized are a tensor read at fewer bits, the input of a ReLU that is its own operator, the inputs of a
    Concatenate, and an average over unpadded pixels, which comes in the steps of its input. The finer tensor, the
    source, gives way: its interval is widened, which costs resolution of its 8 bits (to 4 bits up to 8 %, to 2 bits up
    to a third) and clips nothing more. Pixels, sigmoids, a grid that must end at 6, and a tensor that is requantized a
    second time cannot give way; then the target's interval changes. Only a second use by a Concatenate may remain one
    step off.
    """
    fitted = {student.pixels[0]} | {name for name, tensor in student.outputs.items() if _has_fixed_end(tensor)}
    unary = [layer for layer in student.plain.layers if _only_requantizes(layer, student)]
    # A target's own interval must be settled before its source is fitted to it: last layers first.
    others = [la for la in student.plain.layers if isinstance(la, tf_keras.layers.Concatenate) or la in unary]
    requantize = [layer for layer in unary if layer.name.endswith(REQUANTIZED)]
    for layer in requantize + [la for la in others[::-1] if la not in requantize]:
        target = student.outputs[layer.name].params()
        for parent in parents(layer):
            name = producer(parent).name
            if name not in fitted:
                source = student.outputs[name]
                source.interval.assign(np.float64(target.scale) * ratio_in_256ths(source.params(), target, np.ceil))
                fitted.add(name)
    for layer in unary:  # forward: a source is final when its targets are looked at
        target, source = student.outputs[layer.name], _params_read(layer, student)
        # A target that must end at 6 is narrowed; any other is widened, and clips nothing more.
        ratio = ratio_in_256ths(source, target.params(), np.ceil if _has_fixed_end(target) else np.floor)
        target.interval.assign(np.float64(source.scale) / ratio)


def _only_requantizes(layer, student: QuantizedStudent) -> bool:
    """Whether the layer gives a tensor another grid and does nothing else that rounds: a requantization, a ReLU with or
    without a slope.

    An average over unpadded pixels has already rounded to the steps of its input.
    """
    if averages_what_is_there(layer):
        return True
    if isinstance(layer, tf_keras.layers.LeakyReLU):
        return True
    if not isinstance(layer, (tf_keras.layers.ReLU, tf_keras.layers.Activation)) or is_sigmoid(layer):
        return False
    source = producer(parents(layer)[0]).name
    return source in student.outputs or source == student.pixels[0]


def _has_fixed_end(tensor: QuantizedTensor) -> bool:
    """Whether an interval must not be widened: a sigmoid's, or that of a grid that ends at 6."""
    return not tensor.interval.trainable or tensor.quantizer.largest_value is not None


def ratio_in_256ths(source: TensorQuantParams, target: TensorQuantParams, direction) -> float:
    """source interval / target interval, moved in `direction` (np.ceil, np.floor) to m / 256.

    XNNPACK rounds ties of q * m / 256 up, so for an unsigned grid the ratio is a shade above m / 256. If q may be
    negative, m is odd: then only q = 128 and q = -128 are ties, and for grids that hold -128 a ratio a shade below
    m / 256 makes it round up.
    """
    wanted = RATIO_STEPS * np.float64(source.scale) / np.float64(target.scale)
    slack = 1 - 2 * TIE_SHADE if direction is np.ceil else 1 + 2 * TIE_SHADE  # a ratio that fits stays
    m = max(1.0, direction(wanted * slack))
    if source.grid.qmin < 0 and m % 2 == 0:
        m += 1 if direction is np.ceil else -1
    shade = -TIE_SHADE if source.grid.qmin <= -128 else TIE_SHADE
    if m == 1 and shade < 0:
        shade = 0.0  # -128/256 rounds to 0 in either way; beside it XNNPACK rounds the last elements of a row otherwise
    return m / RATIO_STEPS * (1 + shade)


def round_slopes(student: QuantizedStudent) -> None:
    """Moves the slopes of LeakyReLU and PReLU to what operators can hold."""
    sloped = [layer for layer in student.plain.layers if has_slope(layer)]
    if not sloped:
        return
    student.copy_weights_to_plain()
    for layer in sloped:
        if isinstance(layer, tf_keras.layers.LeakyReLU):
            layer.alpha = student.twin(layer.name).alpha = _slope_in_256ths(layer, student)
        else:
            slopes = layer.alpha.numpy()
            layer.alpha.assign(fake_quantize(slopes, slope_params(slopes)))
    student.copy_weights_from_plain()
    for model in (student.plain, student.model):
        model.make_predict_function(force=True)  # a slope of LeakyReLU is a constant of what was traced before


def _slope_in_256ths(layer, student: QuantizedStudent) -> np.float32:
    """The fraction n / m nearest to a LeakyReLU's slope, where m / 256 is its ratio of intervals; n is not 0.

    XNNPACK rounds negative ties up, so the slope is a shade nearer to 0. For n = 1 it is a shade above instead, because
    XNNPACK takes no less than 1/256.
    """
    ratio = np.float64(_params_read(layer, student).scale) / student.outputs[layer.name].params().scale
    m = np.round(RATIO_STEPS * ratio)
    n = max(1.0, np.round(m * abs(layer.alpha)))
    return np.float32(np.sign(layer.alpha) * n / m * (1 + 2 * (TIE_SHADE if n == 1 else -TIE_SHADE)))


def _params_read(layer, student: QuantizedStudent) -> TensorQuantParams:
    """Parameters of the one tensor that a layer reads."""
    name = producer(parents(layer)[0]).name
    return student.outputs[name].params() if name in student.outputs else student.pixels[1]


def round_biases(student: QuantizedStudent, rounds_twice: bool = False) -> None:
    """Moves each folded bias of the float and the quantized student to its nearest integer step.

    The change goes into the layer's own bias, or into beta of the BatchNormalization after it. If a channel's steps are
    too small for the bias to fit int32, it is left alone; `integer_limits` deals with it.

    Args:
      rounds_twice: whether to subtract what two roundings add, before the nearest step is chosen.
    """
    student.copy_weights_to_plain()
    scales = {name: quantized.params().scale for name, quantized in student.outputs.items()}
    scales[student.pixels[0]] = student.pixels[1].scale
    for name, quantized in student.weights.items():
        layer = student.plain.get_layer(name)
        (parent,) = parents(layer)
        step = np.float64(scales[producer(parent).name]) * np.float64(quantized.params().scale)
        step /= 2**quantized.grid.weight_shift
        following = layer.outbound_nodes[0].outbound_layer if layer.outbound_nodes else None
        output = _output(student, layer).params()
        lifted = rounds_twice and output.grid.qmin == 0
        if isinstance(following, tf_keras.layers.BatchNormalization):
            _round_beta(following, layer, step, output.scale if lifted else None)
        elif layer.use_bias:
            bias = layer.bias.numpy().astype(np.float64)
            steps = np.full_like(bias, step)
            wanted = bias - lift_by_rounding_twice(steps, output.scale) if lifted else bias
            layer.bias.assign(_nearest(wanted, steps, bias))
    student.copy_weights_from_plain()


def lift_by_rounding_twice(step: np.ndarray, interval: float) -> np.ndarray:
    """How far rounding twice lifts a non-negative sum, in real numbers.

    With step / interval = m * 2^-s and m in [0.5, 1), a sum of n steps becomes round(round(n * m) / 2^s). A sum up to
    half of 2^-s output steps below a rounding edge is rounded over it, so sums act as if they were larger by that much.
    For s < 1 nothing is divided, and for large s the lift vanishes. A signed output has no such lift, because negative
    sums are rounded away from 0, too.

    Args:
      step: real value of one step of each channel's sums, positive.
      interval: interval of the output.

    Returns:
      The lift in real numbers, of the shape of `step`.
    """
    exponent = np.frexp(step / np.float64(interval))[1]
    return np.where(exponent < 0, np.ldexp(0.5 * np.float64(interval), np.minimum(exponent, 0)), 0.0)


def _output(student: QuantizedStudent, layer) -> QuantizedTensor:
    """The quantized tensor that a layer outputs, including what is folded into it."""
    while layer.name not in student.outputs:
        layer = layer.outbound_nodes[0].outbound_layer
    return student.outputs[layer.name]


def _round_beta(batch_norm, layer, step: float, lifts_to: float | None) -> None:
    """beta such that beta + a * (bias - mean) is a multiple of step * |a|, a = gamma / sqrt(variance + epsilon).

    Args:
      lifts_to: interval of the output whose lift is subtracted; None for none.
    """
    bias = layer.bias.numpy() if layer.use_bias else np.zeros(layer.output_shape[-1])
    a, folded = batch_norm_of(batch_norm).affine(bias)
    steps = step * np.abs(a)
    wanted = folded if lifts_to is None else folded - lift_by_rounding_twice(steps, lifts_to)
    batch_norm.beta.assign(batch_norm.beta.numpy() + (_nearest(wanted, steps, folded) - folded))


def _nearest(bias: np.ndarray, step: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The multiple of `step` nearest to `bias`; `otherwise` if that does not fit int32."""
    fits = np.abs(bias) < step * INT32_MAX
    return np.where(fits, np.round(bias / np.where(fits, step, 1.0)) * step, otherwise)
