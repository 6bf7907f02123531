"""A budget of bytes for a student, and the bit widths by layer that lose least within it."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping

from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import ExperimentError, TargetSpec
from qkd_tf.quantization import knapsack

LOSS_UNIT = 1e-4  # points of top-1, for losses that add up exactly: an image of a million


@dataclasses.dataclass(frozen=True)
class ByteBudget:
    """What a student may take.

    Attributes:
      flag: that gave it.
      num_bytes: the budget.
      kernel_bytes: (layer, bits) -> bytes of its kernel, as this budget counts them.
      other_bytes: what is there beside kernels.
    """

    flag: str
    num_bytes: int
    kernel_bytes: Callable[[str, int], float]
    other_bytes: int = 0

    def needed(self, bits: Mapping[str, int]) -> float:
        """Bytes with these widths by layer."""
        return self.other_bytes + sum(self.kernel_bytes(layer, num_bits) for layer, num_bits in bits.items())

    def widths(self, trained: Mapping[str, int], losses: Mapping[tuple[str, int], float]) -> dict[str, int]:
        """Bits of each layer: of all choices within the budget the one with the least sum of losses.

        Losses are taken as if they added up, which they do but roughly. A gain counts as no loss. Of equal sums
        it is the one that takes the fewest bits away.

        Args:
          trained: bits by layer, in their order, which each layer may keep without loss.
          losses: (layer, bits) -> points of top-1.

        Raises:
          ExperimentError: no choice is within the budget.
        """
        choices = {
            layer: [(own, 0.0), *((bits, loss) for (name, bits), loss in losses.items() if name == layer)]
            for layer, own in trained.items()
        }
        items = [
            [
                knapsack.Option(
                    self.kernel_bytes(layer, bits), round(max(loss, 0.0) / LOSS_UNIT), abs(trained[layer] - bits)
                )
                for bits, loss in tried
            ]
            for layer, tried in choices.items()
        ]
        chosen = knapsack.choose(items, self.num_bytes - self.other_bytes)
        if chosen is None:
            fewest = self.other_bytes + sum(min(option.size for option in options) for options in items)
            raise ExperimentError(
                f"--{self.flag}={self.num_bytes} is too little: the fewest of these bits need {fewest:,.0f} bytes; "
                "allow fewer bits in --try_bits, or more bytes (--target decides which widths save bytes in a file)"
            )
        return {layer: tried[index][0] for (layer, tried), index in zip(choices.items(), chosen, strict=True)}


def bytes_beside_kernels(run_dir: pathlib.Path, target: TargetSpec) -> int:
    """Of the file that a run was exported to: all but its kernels, which other widths leave nearly as it is.

    Raises:
      ExperimentError: the run was not exported for the target, or by another version.
    """
    for folder in ("export", f"export-{target.target}"):
        path = run_dir / folder / "verification.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["target"] == TARGETS[target.target].title and found["kernels"]:
                return found["file"]["bytes"] - sum(kernel["bytes"] for kernel in found["kernels"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue  # not there, or of another version
    raise ExperimentError(
        f"--max_flash_bytes counts the whole file, and {run_dir} has none for {target.target}; run python -m "
        f"tflite_export --run_dir={run_dir} --target={target.target} first, or give --max_weight_bytes"
    )
