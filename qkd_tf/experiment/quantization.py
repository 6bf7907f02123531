"""Bit widths, and how intervals are chosen and learned."""

import dataclasses
import re

from qkd_tf.experiment.checks import ExperimentError, require, require_bits, require_count, require_known
from qkd_tf.experiment.option import option

INTERVAL_INITS = ("minmax", "lsq", "mse")
INTERVAL_GRADIENT_SCALES = ("none", "lsq")
EQUALIZATIONS = ("auto", "on", "off")
NORMALIZATIONS = ("off", "layer", "channel")
AUTO_BITS = "auto"  # of --bits
WIDEST_BITS = 8  # most bits that --bits=auto gives a kernel; activations then have as many
# Ratio of a kernel's largest channel to its median one beyond which channels are equalized before training. ResNets
# have ratios up to 2.6, and equalizing cost ResNet-8 accuracy at 2 bits. Depthwise kernels of MobileNets have ratios of
# 3 to 40, and without it MobileNets lose all accuracy at 4 bits.
UNEVEN_CHANNELS = 3.0


@dataclasses.dataclass(frozen=True)
class BitsRule:
    """Bit widths of the layers whose whole name matches a regular expression; None leaves a width unchanged."""

    pattern: str
    weight_bits: int | None = None
    activation_bits: int | None = None

    @classmethod
    def parse(cls, text: str) -> "BitsRule":
        """Reads "block_1_.*=w4a8", "stem=w8" or "logits=a6".

        Raises:
          ExperimentError: another form, an invalid regular expression, or impossible bit widths.
        """
        pattern, _, widths = text.rpartition("=")
        found = re.fullmatch(r"(?:w(\d{1,4}))?(?:a(\d{1,4}))?", widths)
        if not (pattern and widths and found):
            raise ExperimentError(f"--bits_rule={text} is not of the form 'regex=w4a8'; w4 or a8 may be left out")
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ExperimentError(f"--bits_rule={text}: {pattern} is not a regular expression: {error}") from None
        numbers = [int(digits) if digits else None for digits in found.groups()]
        for number in numbers:
            require_bits(8 if number is None else number, f"bits_rule={text}: bits")
        return cls(pattern, *numbers)

    def __str__(self) -> str:
        parts = (("w", self.weight_bits), ("a", self.activation_bits))
        return f"{self.pattern}=" + "".join(f"{letter}{bits}" for letter, bits in parts if bits is not None)


@dataclasses.dataclass(frozen=True)
class QuantizationSpec:
    """Bit widths, and the options of the learned intervals. The flags of the same names explain each.

    Attributes:
      finds_bits: --bits=auto. Bit widths of kernels are found before training, and those given here are upper limits.
      told_by_bits: whether the user gave the bit widths by --bits.
      found_bits: the bit widths that were found, in the order of the network's kernels (names of layers may differ in
        another process). A user's rules override them.
    """

    weight_bits: int = option(4, "Bit width of kernels, 2..8, except of the first and last layer.")
    activation_bits: int = option(4, "Bit width of the inputs of layers, 2..8, except of the first and last layer.")
    first_layer_bits: int = option(8, "Bit width of the first layer's weights and input (QKD: 8).")
    last_layer_bits: int = option(8, "Bit width of the last layer's weights and input (QKD: 8).")
    residual_bits: int = option(8, "Bit width of tensors that an addition, concatenation or average reads.")
    bits_rule: tuple[str, ...] = option(
        (),
        "Bit widths of the layers whose whole name matches a regular expression: 'regex=w4a8', 'regex=w4' or "
        "'regex=a8'. Repeatable; later rules override earlier ones, and they override all other flags of bit widths.",
    )
    interval_init: str = option(
        "mse",
        "How the first intervals (quantization step sizes) are chosen: minmax from the extremes, lsq from LSQ's mean, "
        "mse by the least squared error.",
        choices=INTERVAL_INITS,
    )
    equalize_channels: str = option(
        "auto",
        "Scale the channels of a kernel so that all have the same largest weight, before intervals are chosen; "
        "BatchNorm undoes the scaling. auto: without phases, or if a kernel's largest channel is more than "
        f"{UNEVEN_CHANNELS:g} times its median one.",
        choices=EQUALIZATIONS,
    )
    normalize_weights: str = option(
        "off",
        "Before a kernel of fewer than 8 bits is rounded, subtract its mean and divide by its standard deviation "
        "(APoT), if a BatchNormalization follows. layer: one mean and deviation for the kernel; channel: one for each "
        "output channel. The student must be trained afterwards.",
        choices=NORMALIZATIONS,
    )
    interval_gradient_scale: str = option(
        "lsq",
        "Factor on the gradient of intervals: none for 1, lsq for LSQ's 1/sqrt(N*qmax).",
        choices=INTERVAL_GRADIENT_SCALES,
    )
    interval_gradient_share: float = option(
        0.125,
        "Share of a batch's examples, in (0, 1], from which the gradient of activation intervals is estimated; 1 is "
        "exact, less is faster. It applies to residual tensors and tensors requantized from them; with "
        "--mixed_precision, to all.",
    )
    narrow_range: bool = option(
        True,
        "Kernels of b bits hold 2^b - 1 integers, symmetric about 0 (QKD: 2 bits are ternary). Otherwise kernels below "
        "8 bits have one more, -2^(b-1) (LSQ), and none is stored as INT4.",
    )
    mask_weight_gradient: bool = option(
        True, "Set a weight's gradient to 0 outside its range (LSQ); QKD's authors do not."
    )
    ewgs_scale: float = option(
        0.0,
        "Scaling of a gradient by its value's rounding error, in [0, 1); 0: straight-through estimator (EWGS: 1e-3).",
    )
    calibration_batches: int = option(8, "Training batches from which the first activation intervals are chosen.")
    finds_bits: bool = False
    told_by_bits: bool = dataclasses.field(default=False, compare=False)
    found_bits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_known(self.equalize_channels, EQUALIZATIONS, "--equalize_channels")
        require_known(self.normalize_weights, NORMALIZATIONS, "--normalize_weights")
        for field in ("weight_bits", "activation_bits", "first_layer_bits", "last_layer_bits", "residual_bits"):
            require_bits(getattr(self, field), field)
        _ = self.rules  # a rule that cannot be read is told at once
        require_known(self.interval_init, INTERVAL_INITS, "--interval_init")
        require_known(self.interval_gradient_scale, INTERVAL_GRADIENT_SCALES, "--interval_gradient_scale")
        require_count(self.calibration_batches, "calibration_batches", 1)
        require(
            0 < self.interval_gradient_share <= 1,
            f"--interval_gradient_share={self.interval_gradient_share} is not in (0, 1]; 1 takes all examples",
        )
        require(
            0 <= self.ewgs_scale < 1,
            f"--ewgs_scale={self.ewgs_scale} is not in [0, 1); 0 is the straight-through estimator",
        )

    @property
    def bits(self) -> tuple[int, int]:
        """Bit widths of weights and activations, except those of single layers."""
        return self.weight_bits, self.activation_bits

    def at(self, bits: tuple[int, int]) -> "QuantizationSpec":
        """The same with other bit widths; the first and last layer, residual tensors and rules keep theirs."""
        return dataclasses.replace(self, weight_bits=bits[0], activation_bits=bits[1])

    def flag_of(self, bits: tuple[int, int]) -> str:
        """The flags that change the bit widths to `bits`: --bits if the user gave that, else those of the widths."""
        if self.told_by_bits:
            return f"--bits={bits[0]}" if bits[0] == bits[1] else "--bits=w{}a{}".format(*bits)
        told = zip(("weight_bits", "activation_bits"), bits, self.bits, strict=True)
        return " ".join(f"--{name}={other}" for name, other, own in told if other != own)

    @property
    def rules(self) -> list[BitsRule]:
        return [BitsRule.parse(text) for text in self.bits_rule]

    @property
    def is_open(self) -> bool:
        """Whether bit widths are still to be found."""
        return self.finds_bits and not self.found_bits

    def says_bits_of(self, layer: str) -> bool:
        """Whether a user's rule sets the bit width of a layer's kernel."""
        return any(rule.weight_bits is not None and re.fullmatch(rule.pattern, layer) for rule in self.rules)
