"""A budget of bytes for a student, and the bit widths by layer that lose the least within it."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

from qkd_tf.experiment import require
from qkd_tf.search import knapsack
from qkd_tf.search.subject import Sensitivity

LOSS_UNIT = 1e-4  # points of top-1, for losses that add up exactly: an image of a million
DIVERGENCE_UNIT = 1e-4  # nats
FEWEST_BITS = 2


@dataclasses.dataclass(frozen=True)
class ByteBudget:
    """The bytes that a student may take.

    Attributes:
      flag: the flag that gave the budget.
      num_bytes: the budget.
      kernel_bytes: (layer, bits) -> bytes of its kernel, as this budget counts them.
      other_bytes: bytes besides kernels.
    """

    flag: str
    num_bytes: int
    kernel_bytes: Callable[[str, int], float]
    other_bytes: int = 0

    def needed(self, bits: Mapping[str, int]) -> float:
        """Bytes with these bit widths by layer."""
        return self.other_bytes + sum(self.kernel_bytes(layer, num_bits) for layer, num_bits in bits.items())

    def require_possible(self, choices: Mapping[str, Collection[int]]) -> None:
        """Raises ExperimentError if even the fewest bits of each layer are not within the budget.

        Args:
          choices: bit widths by layer.
        """
        fewest = self.other_bytes + sum(
            min(self.kernel_bytes(layer, bits) for bits in widths) for layer, widths in choices.items()
        )
        fewer = "fewer bits in --try_bits, or " * (min(map(min, choices.values())) > FEWEST_BITS)
        require(
            fewest <= self.num_bytes,
            f"--{self.flag}={self.num_bytes} is too little: even the fewest of these bits need {fewest:,.0f} bytes; "
            f"allow {fewer}more bytes (--target decides which widths save bytes)",
        )

    def widths(self, trained: Mapping[str, int], rows: Sequence[Sensitivity]) -> dict[str, int]:
        """Bit width of each layer: of all choices within the budget, the one with the smallest sum of losses.

        Losses are treated as additive, which they are only roughly. A gain counts as no loss. Sums are often equal on
        few validation images; then the smallest sum of divergences decides, then the fewest bits taken away.

        Args:
          trained: bit width by layer, in order, which each layer may keep without loss.
          rows: the other bit widths that were tried.

        Raises:
          ExperimentError: no choice is within the budget.
        """
        choices = {layer: [(own, (0, 0, 0))] for layer, own in trained.items()}
        for row in rows:
            losses = round(max(row.loss, 0.0) / LOSS_UNIT), round(row.divergence / DIVERGENCE_UNIT)
            choices[row.layer].append((row.num_bits, (*losses, abs(trained[row.layer] - row.num_bits))))
        items = [
            [knapsack.Option(self.kernel_bytes(layer, bits), losses) for bits, losses in tried]
            for layer, tried in choices.items()
        ]
        self.require_possible({layer: [bits for bits, _ in tried] for layer, tried in choices.items()})
        chosen = knapsack.choose(items, self.num_bytes - self.other_bytes)
        return {layer: tried[index][0] for (layer, tried), index in zip(choices.items(), chosen, strict=True)}
