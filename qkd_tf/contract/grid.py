"""Integer grids and quantization parameters, which training and export share.

NumPy only. Training writes integers and parameters with `save_params`, and the exporter reads them with `load_params`.
Neither side needs to know how the other rounds.
"""

import dataclasses
import json
import pathlib

import numpy as np

MIN_BITS = 2
MAX_BITS = 8
INT4_BITS = 4
INT4_MAX = 7  # kernels with integers up to here can be stored as INT4
AVERAGE_CODE = 64  # each weight of an average over windows; a power of two, so that only its scale rounds
INT8_MIN = -128
INT8_MAX = 127


@dataclasses.dataclass(frozen=True)
class IntegerGrid:
    """The integers that a tensor of `num_bits` bits may hold: qmin, qmin + 1, ..., qmax."""

    num_bits: int
    qmin: int
    qmax: int

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.num_bits <= MAX_BITS:
            raise ValueError(f"a bit width of {self.num_bits} was asked for; {MIN_BITS} to {MAX_BITS} are possible")
        if not self.qmin <= 0 < self.qmax:
            raise ValueError(f"a grid must hold 0 and a positive integer, but [{self.qmin}, {self.qmax}] does not")
        if self.num_levels > 2**self.num_bits:
            raise ValueError(f"[{self.qmin}, {self.qmax}] has more than 2^{self.num_bits} levels")

    @property
    def num_levels(self) -> int:
        return self.qmax - self.qmin + 1

    @property
    def activation_zero_point(self) -> int:
        """The int8 that means 0.0 when the grid's largest value is stored as 127, the largest int8.

        Int8 saturation then clips above, at any bit width. On an unsigned grid a fused RELU clips below. So clipping
        needs no operator of its own.
        """
        return INT8_MAX - self.qmax

    @property
    def bottom_zero_point(self) -> int:
        """The int8 that means 0.0 when the grid's smallest value is stored as -128: saturation then clips below."""
        return INT8_MIN - self.qmin

    @property
    def is_narrow(self) -> bool:
        """Whether it has the negative of each of its integers; a negative BatchNorm scale flips a kernel's signs."""
        return -self.qmin <= self.qmax

    @property
    def fits_int4(self) -> bool:
        """Whether a kernel fits int4. In a full range the lowest integer may change its sign, and then does not fit."""
        return self.is_narrow and self.num_bits <= INT4_BITS

    @property
    def weight_shift(self) -> int:
        """Number of bits by which stored weights are shifted left, into the most significant bits of int4 or int8.

        q * 2^shift in steps of scale / 2^shift is the same number. But sums of products have steps 2^shift times finer,
        so runtimes that round twice differ less from those that round once. A full range keeps one bit free,
        because its lowest integer may change its sign.
        """
        if not self.is_narrow:
            return MAX_BITS - 1 - self.num_bits
        return (INT4_BITS if self.num_bits <= INT4_BITS else MAX_BITS) - self.num_bits


def weight_grid(num_bits: int, narrow_range: bool = True) -> IntegerGrid:
    """For kernels. The narrow range is QKD's: 2 bits are ternary. The full range (LSQ) adds -2^(b-1), not at 8 bits."""
    qmax = 2 ** (num_bits - 1) - 1
    return IntegerGrid(num_bits, -qmax if narrow_range or num_bits == MAX_BITS else -qmax - 1, qmax)


def unsigned_grid(num_bits: int) -> IntegerGrid:
    """For activations that are never negative: [0, 2^b - 1]."""
    return IntegerGrid(num_bits, 0, 2**num_bits - 1)


def signed_grid(num_bits: int) -> IntegerGrid:
    """For activations of both signs: narrow range, but at 8 bits all of int8, so that saturation clips."""
    qmax = 2 ** (num_bits - 1) - 1
    return IntegerGrid(num_bits, INT8_MIN if num_bits == MAX_BITS else -qmax, qmax)


def activation_grid(num_bits: int, negative_share: float) -> IntegerGrid:
    """For activations that reach `negative_share` times as far below 0 as above: 0 means never below, 1 equally far.

    Between 0 and 1 the levels are divided in that ratio, with at least one below 0. At 8 bits it is the signed grid,
    which has enough levels.
    """
    if negative_share <= 0:
        return unsigned_grid(num_bits)
    if negative_share >= 1 or num_bits == MAX_BITS:
        return signed_grid(num_bits)
    steps = 2**num_bits - 1
    below = max(1, round(steps * negative_share / (1 + negative_share)))
    return IntegerGrid(num_bits, -below, steps - below)


def pixel_grid(zero_pixel: int) -> IntegerGrid:
    """8-bit pixels 0..255, of which `zero_pixel` reads as 0.0."""
    if not 0 <= zero_pixel < 255:
        raise ValueError(f"zero_pixel must lie in 0..254, got {zero_pixel}")
    return IntegerGrid(8, -zero_pixel, 255 - zero_pixel)


@dataclasses.dataclass(frozen=True)
class TensorQuantParams:
    """real value = scale * q = scale * (stored - zero_point), q in `grid`, stored in int8."""

    grid: IntegerGrid
    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"a scale must be positive and finite, got {self.scale}")
        if self.stored_min < INT8_MIN or self.stored_max > INT8_MAX:
            raise ValueError(f"[{self.stored_min}, {self.stored_max}] does not fit int8")

    @property
    def stored_min(self) -> int:
        return self.grid.qmin + self.zero_point

    @property
    def stored_max(self) -> int:
        return self.grid.qmax + self.zero_point

    def written_zero_point(self, relu_alone: bool = False) -> int:
        """The zero point with which an operator writes this activation; unless `zero_point`, a second operator clips.

        Saturation clips one end of a grid that is smaller than int8. If the grid extends below 0, no fused RELU clips
        the other end. Then the operator writes it with its bottom on int8's bottom, and a QUANTIZE moves it to
        `zero_point`, which clips its top.

        Args:
          relu_alone: the operator is only a ReLU, written as a QUANTIZE, which cannot fuse one.
        """
        return self.grid.bottom_zero_point if self.grid.qmin < 0 or relu_alone else self.zero_point


def activation_params(grid: IntegerGrid, scale: float) -> TensorQuantParams:
    return TensorQuantParams(grid, float(np.float32(scale)), grid.activation_zero_point)


def weight_params(grid: IntegerGrid, scale: float) -> TensorQuantParams:
    return TensorQuantParams(grid, float(np.float32(scale)), 0)


def slope_params(slopes: np.ndarray) -> TensorQuantParams:
    """Parameters for a PReLU's slopes, any shape: 8 bits, the largest slope at the end of the grid."""
    grid = weight_grid(MAX_BITS)
    return weight_params(grid, float(np.float32(np.max(np.abs(slopes)) / grid.qmax)) or 1.0)


def quantize(x: np.ndarray, params: TensorQuantParams) -> np.ndarray:
    """Real values to stored int8: round(x / scale), half to even, clipped to the grid."""
    z = np.clip(np.asarray(x, np.float32) / np.float32(params.scale), params.grid.qmin, params.grid.qmax)
    return (np.round(z) + params.zero_point).astype(np.int8)


def dequantize(stored: np.ndarray, params: TensorQuantParams) -> np.ndarray:
    """Stored int8 to float32 real values."""
    return (np.asarray(stored, np.int32) - params.zero_point).astype(np.float32) * np.float32(params.scale)


def fake_quantize(x: np.ndarray, params: TensorQuantParams) -> np.ndarray:
    """The nearest point of the grid, as a real value."""
    return dequantize(quantize(x, params), params)


def save_params(path: pathlib.Path, params: dict[str, TensorQuantParams]) -> None:
    """Writes {tensor name: parameters} as JSON; float32 scales survive the round trip exactly."""
    path.write_text(json.dumps({name: dataclasses.asdict(p) for name, p in params.items()}, indent=1) + "\n")


def load_params(path: pathlib.Path) -> dict[str, TensorQuantParams]:
    rows = json.loads(path.read_text())
    return {
        name: TensorQuantParams(IntegerGrid(**row["grid"]), row["scale"], row["zero_point"])
        for name, row in rows.items()
    }
