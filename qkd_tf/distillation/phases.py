"""The phases of QKD as rows: who trains, and on which losses."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Phase:
    """A row of the method's table.

    Attributes:
      quantized: whether the student trains with its quantizers; otherwise it is the plain float model.
      teacher: "absent"; "trained" beside the student; or "frozen", in inference mode.
      distills: whether the student's loss has T^2 * KL(teacher || student), and a trained teacher's the reverse.
    """

    name: str
    quantized: bool
    teacher: str
    distills: bool


PHASES: Mapping[str, Phase] = {
    phase.name: phase
    for phase in (
        Phase("full_precision", quantized=False, teacher="trained", distills=False),
        Phase("self_studying", quantized=True, teacher="absent", distills=False),
        Phase("co_studying", quantized=True, teacher="trained", distills=True),
        Phase("tutoring", quantized=True, teacher="frozen", distills=True),
    )
}
