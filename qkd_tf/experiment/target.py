"""What the file is for."""

import dataclasses

from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment.checks import require_count, require_known
from qkd_tf.experiment.option import option


@dataclasses.dataclass(frozen=True)
class TargetSpec:
    """What the file is for, as far as it can be told before training."""

    target: str = option(
        "phone", "Device that the file is for; the pre-flight checks its limits.", choices=list(TARGETS)
    )
    max_flash_bytes: int = option(0, "Limit of the weights on the target, in bytes; 0: no limit.")
    max_ram_bytes: int = option(0, "Limit of the activations on the target, in bytes; 0: no limit.")

    def __post_init__(self) -> None:
        require_known(self.target, TARGETS, "--target")
        for field in ("max_flash_bytes", "max_ram_bytes"):
            require_count(getattr(self, field), field, highest=1 << 62, why="0 is no limit")

    @property
    def judge(self) -> str:
        """The row of ARITHMETICS in which the student counts."""
        return TARGETS[self.target].judges[0]

    @property
    def packs_int4(self) -> bool:
        """Whether kernels that fit INT4 are stored two a byte there."""
        return TARGETS[self.target].auto == "int4"
