"""How a student was trained, and what would make its file more accurate."""

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from qkd_tf.contract.origin import IN_MEMORY

BYTE_BITS = 8  # of an activation in a file, whatever its width


def discarded_epochs(phases: Iterable[Mapping[str, Any]]) -> int:
    """How many epochs the quantized phases had if none was kept, so that the student is only calibrated; else 0.

    Args:
      phases: as in results.json.
    """
    quantized = [phase for phase in phases if phase["phase"] != "full_precision"]
    return 0 if any(phase["best_epoch"] for phase in quantized) else sum(phase["epochs"] for phase in quantized)


@dataclasses.dataclass(frozen=True)
class Course:
    """How a student was trained: what bears on how to improve its file's accuracy.

    Attributes:
      run_dir: folder of the run.
      weight_bits, activation_bits: of the layers that no rule names.
      target: the row of TARGETS that it was trained for.
      is_trained: whether any phase trained it; otherwise calibration chose its intervals.
      is_command: whether its folder's flags describe all of it; otherwise Python passed the network or the examples.
    """

    run_dir: str
    weight_bits: int
    activation_bits: int
    target: str
    is_trained: bool
    is_command: bool

    @classmethod
    def of(cls, experiment: Mapping[str, Any], run_dir: str) -> "Course":
        """From the fields of an experiment, as results.json has them."""
        quantization = experiment["quantization"]
        names = [experiment[part]["name"] for part in ("data", "student", "teacher") if experiment.get(part)]
        names.append(experiment["data"].get("augment", ""))
        return cls(
            run_dir,
            quantization["weight_bits"],
            quantization["activation_bits"],
            experiment["target"]["target"],
            is_trained=bool(experiment["training"]["phases"]),
            is_command=not any(name.startswith(IN_MEMORY) for name in names),
        )

    def more_accurate(self, target: str) -> str:
        """What to do if a file for `target` is not accurate enough, beginning with what costs no bytes."""
        flags: dict[str, str | int] = {}
        reasons = []
        if target != self.target:
            flags["target"] = target
            reasons.append(f"for {target}")
        if not self.is_trained:
            flags["phases"] = "self_studying"
            reasons.append("in a self_studying phase (so far it was only calibrated)")
        if self.activation_bits < BYTE_BITS:
            flags["activation_bits"] = BYTE_BITS
            reasons.append(f"with activations of {BYTE_BITS} bits, which cost no flash")
        more = "train for more epochs (--epochs)"
        if self.weight_bits < BYTE_BITS:
            weak = f"python -m qkd_tf.sensitivity --run_dir={shlex.quote(self.run_dir)}"
            more += f", or with more --weight_bits, in all layers or in those that {weak} finds weak (--bits_rule)"
        else:
            more += ", or take a larger student"
        if not flags:
            return more
        names = [f"w{self.weight_bits}a{flags.get('activation_bits', self.activation_bits)}"]
        names += [str(flags["target"])] if "target" in flags else []
        return f"train {' and '.join(reasons)}: {self._again(flags, *names)}; if that is not enough, {more}"

    def with_last_epoch(self) -> str:
        """How to hand on the last epoch, whatever its validation."""
        return f"to get that of the last epoch, {self._again({'keep_epoch': 'last'}, 'last')}"

    def _again(self, flags: Mapping[str, str | int], *names: str) -> str:
        """The run once more with other flags: as a command if `is_command`, else as a call.

        Args:
          names: parts of the new folder's name, which distinguish it from this run's.
        """
        if not self.is_command:
            return f"qkd_tf.fit({', '.join(f'{name}={value!r}' for name, value in flags.items())}, run_dir=…)"
        run_dir = self.run_dir.rstrip("/")
        given = {"flagfile": f"{run_dir}/flags.txt", **flags, "run_dir": "_".join([run_dir, *names])}
        return " ".join(
            ["python -m qkd_tf.train", *(f"--{name}={shlex.quote(str(value))}" for name, value in given.items())]
        )
