"""Vela, Arm's compiler for Ethos-U NPUs, as a program: options, output and estimates."""

import csv
import dataclasses
import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile
from importlib import metadata

from tflite_export.export_error import ExportError

# Of Vela 5.2's --accelerator-config.
ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
PROGRAM = [sys.executable, "-c", "from ethosu.vela.vela import main; main()"]
COUNT = re.compile(r"^(CPU|NPU) operators = (\d+)", re.MULTILINE)
MEMORIES = {  # in summary.csv, in KiB -> in our figures
    "sram_memory_used": "sram_bytes",
    "dram_memory_used": "dram_bytes",
    "on_chip_flash_memory_used": "on_chip_flash_bytes",
    "off_chip_flash_memory_used": "off_chip_flash_bytes",
}


@dataclasses.dataclass(frozen=True)
class Vela:
    """The NPU to compile for.

    Attributes:
      accelerator: one of ACCELERATORS; the number is multiply-adds per cycle.
      system_config, memory_mode: names in Vela's configuration file (`vela --list-configs Arm/vela.ini`); "" for Vela's
        default.
    """

    accelerator: str = "ethos-u55-128"
    system_config: str = ""
    memory_mode: str = ""

    def compile(self, content: bytes) -> tuple[bytes, dict]:
        """Compiles a .tflite for the device.

        Args:
          content: an int8 .tflite.

        Returns:
          The compiled file, and figures: "cycles" and "milliseconds" per inference, bytes by memory (those that are
          used), "npu_operators" and "cpu_operators", and the configuration as Vela names it.

        Raises:
          ExportError: Vela does not accept the configuration, or fails.
        """
        options = {"system-config": self.system_config, "memory-mode": self.memory_mode}
        given = [f"--{name}={value}" for name, value in options.items() if value]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.tflite"
            path.write_bytes(content)
            arguments = [str(path), f"--output-dir={folder}", f"--accelerator-config={self.accelerator}", *given]
            done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True)
            compiled = path.with_name("model_vela.tflite")
            if done.returncode or not compiled.exists():
                raise ExportError(self._failure(done.stdout + done.stderr))
            (summary,) = path.parent.glob("model_summary_*.csv")
            with summary.open(encoding="utf-8", newline="") as lines:
                row = next(csv.DictReader(lines))
            return compiled.read_bytes(), _figures(row, done.stdout)

    def _failure(self, output: str) -> str:
        asked = f"--vela_accelerator={self.accelerator}"
        for name in ("system_config", "memory_mode"):
            if value := getattr(self, name):
                asked += f" --vela_{name}={value}"
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        reason = lines[-1].rpartition("Error: ")[2].strip("'\"") if lines else "it says nothing"
        return f"Vela failed with {asked}: {reason}; `vela --list-configs Arm/vela.ini` lists valid names"


def absence() -> str | None:
    """Why Vela cannot run; None if it can."""
    if importlib.util.find_spec("ethosu") is None:
        return "ethos-u-vela is not installed; pip install -r requirements-ethos_u.txt"
    return None


def _figures(row: dict[str, str], output: str) -> dict:
    operators = {kind: int(count) for kind, count in COUNT.findall(output)}
    memories = {ours: round(1024 * float(row[theirs])) for theirs, ours in MEMORIES.items()}
    return {
        "version": metadata.version("ethos-u-vela"),
        "accelerator": row["accelerator_configuration"],
        "system_config": row["system_config"],
        "memory_mode": row["memory_mode"],
        "cycles": round(float(row["cycles_total"])),
        "milliseconds": 1000 * float(row["inference_time"]),
        **{name: num_bytes for name, num_bytes in memories.items() if num_bytes},
        "npu_operators": operators.get("NPU", 0),
        "cpu_operators": operators.get("CPU", 0),
    }
