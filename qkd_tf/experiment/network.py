"""A network, and where its first weights come from."""

import dataclasses
import math

from qkd_tf.contract import origin
from qkd_tf.contract.origin import IN_MEMORY, TRAINED_IN_MEMORY
from qkd_tf.experiment.checks import require


@dataclasses.dataclass(frozen=True)
class PixelNormalization:
    """x = (pixel - mean) / std, for pixels of 0..255; one value for all channels, or one per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        require(
            len(self.mean) == len(self.std) and len(self.mean) > 0,
            f"pixel mean {self.mean} and std {self.std} must have the same number of values",
        )
        require(all(0 < s < math.inf for s in self.std), f"pixel std {self.std} must be positive and finite")
        require(all(math.isfinite(m) for m in self.mean), f"pixel mean {self.mean} must be finite")

    @property
    def fits_input(self) -> bool:
        """Whether one zero point and one scale of an 8-bit input can express it."""
        return len(self.mean) == 1 and float(self.mean[0]).is_integer() and 0 <= self.mean[0] < 255


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A network, its own input normalisation, and where its first weights come from.

    Attributes:
      name: a zoo name; "package.module:builder"; a .keras or .h5 file or a folder (with a "/") that Keras saved; or
        "in_memory:…" for a model that Python passed.
      weights: .h5, .keras, .weights.h5 or .npz file; "" for a random start.
      weights_normalization: the normalisation with which its weights were trained; None if it was not given.
      trust_code: load saved models that bring code of their own, such as a Lambda layer.
      is_told: whether the user gave the normalisation.
      reads_signals: whether it is a user's own network for signals. It reads the real numbers that `normalization`
        makes of 8 bits, and may begin with a Rescaling or Normalization of its own.
    """

    name: str
    normalization: PixelNormalization
    weights: str = ""
    weights_normalization: PixelNormalization | None = None
    trust_code: bool = False
    is_told: bool = False
    reads_signals: bool = False

    def on_signals(self, numbers: PixelNormalization, role: str) -> "NetworkSpec":
        """The same network on signals, whose 8 bits mean `numbers`.

        Args:
          role: "student" or "teacher".

        Raises:
          ExperimentError: a normalisation of pixels was given.
        """
        flag = f"--{role}_{'pixel' if self.is_told or role == 'teacher' else 'weights'}_mean"
        require(
            not self.is_told and self.weights_normalization is None,
            f"{flag} and {flag.removesuffix('mean')}std are for pixels, and signals are read as they are; leave them "
            "out: --input_scale and --input_zero_point say what the input's 256 steps mean",
        )
        return dataclasses.replace(self, normalization=numbers, weights_normalization=numbers, reads_signals=True)

    @property
    def is_in_memory(self) -> bool:
        return self.name.startswith(IN_MEMORY)

    @property
    def is_builder(self) -> bool:
        return ":" in self.name and not self.is_in_memory

    @property
    def is_saved(self) -> bool:
        return origin.is_saved(self.name)

    @property
    def is_its_own_file(self) -> bool:
        """Whether its first weights are those in a saved model's file."""
        return self.is_saved and not self.weights

    @property
    def is_trained_in_memory(self) -> bool:
        """Whether Python passed it and said that it is trained."""
        return self.name.startswith(TRAINED_IN_MEMORY)

    @property
    def is_own(self) -> bool:
        """Whether it is a user's own network, not one of the zoo."""
        return self.is_in_memory or self.is_builder or self.is_saved

    @property
    def starts_by_chance(self) -> bool:
        """Whether its first weights are random, unless a builder loads others."""
        return not self.has_weights and not self.is_builder

    @property
    def has_weights(self) -> bool:
        """Whether it comes with trained weights, as far as we can know."""
        return origin.has_weights(self.name, self.weights)
