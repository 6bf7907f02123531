"""Features that are not pictures: how they are recognised, and quantized once to 8 bits over the training set's range.

A network reads them as the real numbers that the integers stand for, scale * (integer - zero point). The file's input
has the same scale and zero point.
"""

import dataclasses

import numpy as np

from qkd_tf.contract.grid import INT8_MIN, TensorQuantParams, activation_params, pixel_grid, quantize
from qkd_tf.experiment import DataSpec, require

COLOURS = (1, 3, 4)  # channels of pictures
STEPS = 256
LAST_ZERO_POINT = STEPS - 2  # a grid has a positive integer
BATCH_BYTES = 16 << 20  # of features that are looked at together
TAIL = 0.001  # share of the numbers, at each end, that does not count as the bulk
FEW_STEPS = 32  # of 256, that the bulk of all numbers should take at the least
FEW_STEPS_OF_CHANNEL = 8
FAR_CLIPPED = 0.05  # share of a split's numbers that other recordings in the same units rarely have beyond training's


def are_signals(shape: tuple[int | None, ...], dtype: np.dtype, spec: DataSpec) -> bool:
    """Whether examples of a shape, without N, are signals: as the flags say, otherwise by shape.

    Square pictures have 1, 3 or 4 channels, others 3 or 4. Square arrays of uint8 are pictures with any channels.
    """
    if spec.signals is not None or spec.of_signals:
        return spec.signals is not False
    if len(shape) != 3:
        return len(shape) < 3 and not (np.dtype(dtype) == np.uint8 and len(shape) == 2 and shape[0] == shape[1])
    height, width, channels = shape
    if spec.of_pictures or None in shape:
        return False
    if height == width:
        return channels not in COLOURS and np.dtype(dtype) != np.uint8
    return min(height, width) == 1 or channels not in COLOURS[1:]


def require_features(features: np.ndarray, name: str, spec: DataSpec) -> None:
    """Raises ExperimentError for non-numbers, NaN, a rank that no network can read, or flags that are for pictures."""
    shape = features.shape[1:]
    flags = ", ".join(f"--{flag}" for flag in spec.of_pictures)
    require(
        not flags,
        f"{flags}: only for pictures, and {name} has signals of shape {shape}; leave it out, or give --nosignals "
        "if they are pictures",
    )
    require(
        1 <= len(shape) <= 3 and 0 not in shape,
        f"{name} has features of shape {shape}; [steps, channels] or [height, width, channels] is expected",
    )
    require(
        features.dtype.kind in "iuf",
        f"{name} has features of {features.dtype}; numbers are expected, best as float32",
    )
    for part in _parts(features):
        with np.errstate(over="ignore"):
            is_finite = bool(np.isfinite(part.astype(np.float32)).all())
        require(
            is_finite, f"{name} has features that are not finite (NaN or infinite); repair or remove these examples"
        )


@dataclasses.dataclass(frozen=True)
class InputGrid:
    """The 256 steps to which features are rounded.

    Attributes:
      params: scale, and the step that means 0.0.
      is_given: whether the features came as 8-bit numbers, on these steps.
    """

    params: TensorQuantParams
    is_given: bool

    @property
    def zero_point(self) -> int:
        """0..254."""
        return -self.params.grid.qmin

    def steps(self, features: np.ndarray) -> np.ndarray:
        """Features [N, ...] as uint8."""
        if self.is_given and features.dtype == np.uint8:
            return features
        steps = np.empty(features.shape, np.uint8)
        for start, part in _numbered(features):
            whole = part.astype(np.int16) if self.is_given else quantize(part, self.params).astype(np.int16)
            steps[start : start + len(part)] = whole - INT8_MIN
        return steps

    def clipped(self, features: np.ndarray) -> float:
        """Share of the numbers, 0..1, that lie outside the steps by more than rounding."""
        if self.is_given:
            return 0.0
        grid, scale = self.params.grid, np.float32(self.params.scale)
        low, high = (grid.qmin - 0.5) * scale, (grid.qmax + 0.5) * scale
        beyond = sum(np.count_nonzero((part < low) | (part > high)) for part in _parts(features))
        return beyond / max(1, features.size)

    def notes(self, train: np.ndarray, clipped: dict[str, float], whole: str) -> tuple[str, ...]:
        """What was chosen and what it costs, one note per line.

        Args:
          train: steps of the training set.
          clipped: split -> share of its numbers outside the steps, 0..1.
          whole: what the sets are, in words.
        """
        grid, scale = self.params.grid, self.params.scale
        shares = ", ".join(f"{name} {100 * share:.3g} %" for name, share in clipped.items())
        notes = [
            f"note: {whole} are read as signals: the input has scale {scale:.6g} and zero point {self.zero_point} of "
            f"0..255, for values from {grid.qmin * scale:.5g} to {grid.qmax * scale:.5g}; clipped: {shares}"
        ]
        if self.is_given:
            if train.ndim == 4 and train.shape[-1] in COLOURS:
                notes[0] += "; if they are pictures, give --nosignals"
            return tuple(notes)
        far = [
            name for name, share in clipped.items() if name != "train" and share > max(FAR_CLIPPED, clipped["train"])
        ]
        if far:
            shares = " and ".join(f"{100 * clipped[name]:.3g} % of {name}" for name in far)
            notes.append(
                f"note: {shares} lie outside the range of the training set and are clipped to it; are they in the same "
                "units?"
            )
        taken, by_channel = _steps_taken(train), [_steps_taken(part) for part in np.moveaxis(train, -1, 0)]
        if taken < FEW_STEPS:
            notes.append(
                f"note: all but {200 * TAIL:g} % of the training set's values use only {taken} of the input's 256 "
                "steps, because of a few outliers or an offset from 0.0; give a smaller --input_scale, or subtract "
                "the offset from the features"
            )
        elif min(by_channel) < FEW_STEPS_OF_CHANNEL:
            narrow, wide = int(np.argmin(by_channel)), int(np.argmax(by_channel))
            notes.append(
                f"note: channel {narrow} uses only {by_channel[narrow]} of the input's 256 steps, channel {wide} uses "
                f"{by_channel[wide]}, because all channels share one scale; if the narrow ones matter, divide each "
                "channel by its own standard deviation, here and on the device"
            )
        return tuple(notes)


def input_grid(train: np.ndarray, is_given: bool, spec: DataSpec) -> InputGrid:
    """The steps for the training set's features: its whole range, with 0.0 on a step, unless flags say otherwise.

    Args:
      train: [N, ...], finite.
      is_given: whether they are steps already, uint8 or int8, which stand for themselves or for what flags say.

    Raises:
      ExperimentError: all features are the same number, or too large for a float32 scale.
    """
    low, high = float(train.min()), float(train.max())
    require(low < high, f"train has features that are all {low:g}; nothing can be learned from them")
    zero_point, scale = spec.input_zero_point, spec.input_scale
    if is_given:
        zero_point = zero_point if zero_point is not None else -INT8_MIN if train.dtype == np.int8 else 0
        scale = scale or 1.0
    elif zero_point is None:
        step = scale or (max(high, 0.0) - min(low, 0.0)) / (STEPS - 1)
        zero_point = int(np.clip(np.round(-low / step), 0, LAST_ZERO_POINT))
    if scale is None:
        scale = max(high / (STEPS - 1 - zero_point), -low / zero_point if zero_point else 0.0)
    require(
        np.finfo(np.float32).tiny <= scale <= np.finfo(np.float32).max,
        f"train has features from {low:g} to {high:g}: a step of {scale:g} is not a float32 number; rescale them",
    )
    return InputGrid(activation_params(pixel_grid(zero_point), scale), is_given)


def _steps_taken(steps: np.ndarray) -> int:
    """Number of steps between the outermost ones outside the tails."""
    shares = np.cumsum(np.bincount(steps.ravel(), minlength=STEPS)) / steps.size
    return int(np.searchsorted(shares, 1 - TAIL) - np.searchsorted(shares, TAIL, side="right")) + 1


def _parts(features: np.ndarray):
    return (part for _, part in _numbered(features))


def _numbered(features: np.ndarray):
    """Yields (index of the first example, examples), some at a time."""
    size = max(1, BATCH_BYTES // max(1, features[:1].nbytes))
    return ((start, features[start : start + size]) for start in range(0, len(features), size))
