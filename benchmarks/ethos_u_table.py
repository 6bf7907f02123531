"""The table of Ethos-U NPUs in docs/fidelity.md: python -m benchmarks.ethos_u_table runs/NAME ...

Has Vela compile the file of each finished run for two NPUs, and the same network with 8-bit weights. Writes
benchmarks/ethos_u/NAME.json and prints a table of all that are there. Vela's numbers are estimates; what else runs does
not matter.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import pathlib
import sys

from benchmarks import kept_results
from qkd_tf.contract.targets import TARGETS
from tflite_export.bundles import vela
from tflite_export.bundles.ethos_u_bundle import at_8_bits
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.load import load_handoff
from tflite_export.rebuilding.rebuild import rebuild

RESULTS = pathlib.Path(__file__).parent / "ethos_u"
ACCELERATORS = ("ethos-u55-128", "ethos-u85-256")
HEADER = (
    "run",
    "NPU",
    "cycles",
    "with 8-bit weights",
    "KiB off the chip",
    "with 8-bit weights",
    "KiB of SRAM",
    "on NPU",
)


def measure(run_dir: pathlib.Path) -> dict:
    """By accelerator what Vela estimates of a run's file, "at_8_bits" of the same with 8-bit weights."""
    target = TARGETS["ethos_u"]
    content = convert(rebuild(load_handoff(run_dir / "handoff"), target.input_type, target.clip), "")
    wide = convert(at_8_bits(read_back(content)), "")
    found = {}
    for accelerator in ACCELERATORS:
        compiler = vela.Vela(accelerator)
        found[accelerator] = {**compiler.compile(content)[1], "at_8_bits": compiler.compile(wide)[1]}
    return {"run": run_dir.name, "accelerators": found}


def rows(numbers: dict) -> list[tuple[str, ...]]:
    lines = []
    for accelerator, row in numbers["accelerators"].items():
        both = (row, row["at_8_bits"])
        operators = row["npu_operators"] + row["cpu_operators"]
        lines.append(
            (
                numbers["run"],
                accelerator,
                *(f"{figures['cycles']:,}" for figures in both),
                *(f"{(figures.get('off_chip_flash_bytes') or figures['dram_bytes']) / 1024:,.1f}" for figures in both),
                f"{row['sram_bytes'] / 1024:,.1f}",
                f"{row['npu_operators']} of {operators}",
            )
        )
    return lines


def main(run_dirs: list[str]) -> None:
    if reason := vela.absence():
        sys.exit(f"error: {reason}")
    kept_results.of_runs(run_dirs, measure, RESULTS, HEADER, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
