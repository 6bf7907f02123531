"""Folds BatchNorm into scale and bias; a kernel's integers stay the same except for signs."""

import dataclasses

import numpy as np

from qkd_tf.contract.batch_norm import BatchNorm
from tflite_export.export_error import ExportError

INT32_MAX = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class FoldedKernel:
    """A kernel in TFLite's form; the output channel is the last axis of `codes`.

    Attributes:
      codes: int8, training's integers * 2^shift.
      scales: float32, [C] after a BatchNorm, else [1].
      bias: int32 [C], in steps of input_scale * scales.
      dead_channels: channels whose kernel was dropped because BatchNorm scales it to nothing.
    """

    codes: np.ndarray
    scales: np.ndarray
    bias: np.ndarray
    dead_channels: tuple[int, ...]


def fold(
    name: str,
    codes: np.ndarray,
    scale: float,
    shift: int,
    bias: np.ndarray,
    batch_norm: BatchNorm | None,
    input_scale: float,
    output_scale: float,
) -> FoldedKernel:
    """Folds a BatchNorm into per-channel scales and the bias.

    With a, b of `BatchNorm.affine`: scale[c] = scale * |a[c]|, codes change sign where a < 0
    (no stored code is -128), bias = b, rounded to the int32 grid.

    Where a[c] is 0, or so small that the bias leaves int32, the channel is a constant to within one
    step of its output: its codes become 0 and its scale one that holds the bias.

    Args:
      codes: int8, output channel last, in steps of `scale`.
      shift: bits by which codes are shifted left, which makes the steps of codes and biases smaller.
      bias: float [C], zeros if the layer has none.

    Raises:
      ExportError: a bias leaves int32 although the channel's kernel matters.
    """
    codes = codes.astype(np.int32)
    if batch_norm is None:
        bias, scales = bias.astype(np.float64), np.array([scale], np.float32)
    else:
        multiplier, bias = batch_norm.affine(bias)
        scales = (scale * np.abs(multiplier)).astype(np.float32)
        codes = codes * np.where(multiplier < 0, -1, 1)

    largest_sum = 255.0 * np.abs(codes).reshape(-1, codes.shape[-1]).sum(axis=0)  # inputs are 8 bits at most
    step = np.broadcast_to(np.float64(input_scale) * scales, bias.shape)
    overflows = (step == 0) | (np.abs(bias) + largest_sum * step > (INT32_MAX >> shift) * step)
    if np.any(overflows & (largest_sum * step >= output_scale)):
        raise ExportError(
            f"layer {name}: the bias of channels {np.flatnonzero(overflows).tolist()} does not fit int32 steps of "
            f"input scale * weight scale; its weights are {scale} * integers: train longer, or with more bits"
        )
    if np.any(overflows):
        codes = np.where(overflows, 0, codes)
        room = np.maximum(np.abs(bias), output_scale) / (input_scale * 2.0**24)
        scales = np.where(overflows, room, scales).astype(np.float32)
        step = np.float64(input_scale) * scales
    return FoldedKernel(
        (codes << shift).astype(np.int8),
        scales / np.float32(2**shift),
        np.round(bias / (step / 2**shift)).astype(np.int32),
        tuple(np.flatnonzero(overflows).tolist()),
    )
