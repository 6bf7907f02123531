"""What the file is for."""

import dataclasses

from qkd_tf.contract.targets import TARGETS, WEIGHT_STORAGES
from qkd_tf.experiment.checks import require, require_count, require_known
from qkd_tf.experiment.option import option

# Why activations have 8 bits on targets whose kernels do (ResNet-8: W4A8 1.00 points above W4A4).
ROUNDS_TWICE = (
    "activations of any width take a byte each, and the target's kernels round twice, which costs accuracy at few bits"
)
FEW_BITS = 4  # of activations


@dataclasses.dataclass(frozen=True)
class TargetSpec:
    """What the file is for, as known before training."""

    target: str = option(
        "phone", "Device that the file is for; the pre-flight checks its limits.", choices=list(TARGETS)
    )
    max_flash_bytes: int = option(
        0,
        "Limit for the file on the target, in bytes, including the code that reads its lookup tables, if any; 0: no "
        "limit.",
    )
    max_ram_bytes: int = option(0, "Limit for the activations on the target, in bytes; 0: no limit.")
    weight_storage: str = option(
        "auto",
        "How the bytes of kernels are counted, and how the export stores kernels by default. int4 packs kernels of at "
        "most 4 bits that run as fast as in int8, int4_all packs all of them. auto is the default of the target.",
        choices=WEIGHT_STORAGES,
    )

    def __post_init__(self) -> None:
        require_known(self.target, TARGETS, "--target")
        require_known(self.weight_storage, WEIGHT_STORAGES, "--weight_storage")
        target = TARGETS[self.target]
        require(
            self.storage == "int8" or self.storage in target.int4,
            f"--weight_storage={self.weight_storage} and --target={self.target} cannot be combined: {target.title} "
            "takes no such kernels; take int8 or auto",
        )
        for field in ("max_flash_bytes", "max_ram_bytes"):
            require_count(getattr(self, field), field, highest=1 << 62, why="0 is no limit")

    @property
    def packs_more(self) -> bool:
        """Whether another --weight_storage takes fewer bytes for kernels of few bits on this target."""
        packs = TARGETS[self.target].int4
        return packs.get("int4_all") not in (None, packs.get(self.storage))

    @property
    def storage(self) -> str:
        """What --weight_storage means for this target: "int8", or a key of `Target.int4`."""
        return TARGETS[self.target].storage(self.weight_storage)
