"""Flash and RAM that a bundle takes on a Cortex-M4 and on a Cortex-M55, with TFLM's kernels and with CMSIS-NN.

    flash = TFLM's interpreter + the kernels of the model's operators + the file
    RAM   = the arena that model.h reserves + variables of interpreter and resolver + the stack

Code was measured by `python -m benchmarks.firmware_table TFLM`: TFLM, as in SOURCES, in its default build (which has
messages), gcc 12.2.1 with -Os, newlib-nano. `make micro TFLM=DIR` checks the sums against linked programs, within
TOLERANCE. An application that uses parts of the C library anyway shares them and pays less.
"""

import dataclasses
from collections.abc import Iterable, Mapping

SOURCES = "tflite-micro of August 2026"
TOLERANCE = 0.02  # of a sum, either way
STACK_BYTES = 1600  # the check of a bundle reached 1,568


@dataclasses.dataclass(frozen=True)
class Build:
    """The core and kernels for which a bundle is linked.

    Attributes:
      core: the core's name; compiled with single-precision floating point, and for M55 with MVE.
      kernels: the kernels' name.
      scratch: which of `cmsis_nn.Scratch` its kernels take; None for TFLM's own kernels.
    """

    core: str
    kernels: str
    scratch: str | None = None


BUILDS = (
    Build("Cortex-M4", "TFLM's reference kernels"),
    Build("Cortex-M4", "CMSIS-NN", "dsp"),
    Build("Cortex-M55", "TFLM's reference kernels"),
    Build("Cortex-M55", "CMSIS-NN", "mve"),
)
INTERPRETER = ""
# Operator -> bytes of flash of its kernels, for each of BUILDS. What kernels share is the interpreter's.
CODE_BYTES: Mapping[str, tuple[int, ...]] = {
    "": (32_284, 33_564, 29_348, 29_452),
    "ADD": (6_336, 9_088, 6_184, 7_496),
    "AVERAGE_POOL_2D": (2_432, 3_264, 2_440, 3_848),
    "CONCATENATION": (4_416, 4_416, 4_440, 4_408),
    "CONV_2D": (7_048, 25_160, 7_048, 19_968),
    "DECODE": (8_768, 8_768, 9_208, 9_208),
    "DEPTHWISE_CONV_2D": (4_288, 15_808, 4_280, 14_656),
    "FULLY_CONNECTED": (4_608, 10_944, 4_568, 11_944),
    "LEAKY_RELU": (1_408, 1_792, 1_424, 1_800),
    "LOGISTIC": (4_932, 5_252, 5_384, 5_712),
    "MAXIMUM": (4_992, 5_184, 4_848, 5_152),
    "MAX_POOL_2D": (2_624, 3_456, 2_608, 3_288),
    "MEAN": (4_224, 4_608, 4_272, 4_656),
    "MUL": (6_272, 8_128, 6_128, 7_432),
    "PAD": (3_968, 4_288, 4_088, 4_408),
    "PRELU": (3_328, 3_712, 3_256, 3_632),
    "QUANTIZE": (2_560, 2_944, 2_448, 2_816),
    "RESHAPE": (1_600, 1_664, 1_640, 1_640),
    "RESIZE_NEAREST_NEIGHBOR": (2_432, 2_496, 2_304, 2_344),
    "SLICE": (2_176, 2_176, 2_208, 2_208),
}
# Static RAM beside the arena: of interpreter and C library, and of each operator in the resolver.
INTERPRETER_RAM_BYTES, OPERATOR_RAM_BYTES = 216, 48


def rows(file: str, kinds: Iterable[str], num_bytes: int, arenas: Iterable[int]) -> list[dict]:
    """What a file takes, by build.

    Args:
      file: its name.
      kinds: its kinds of operators, including DECODE if it has lookup tables.
      num_bytes: its size.
      arenas: bytes reserved as arena, for each of BUILDS.
    """
    kinds, found = list(kinds), []
    variables = INTERPRETER_RAM_BYTES + OPERATOR_RAM_BYTES * len(kinds)
    code_bytes = [sum(sizes) for sizes in zip(*(CODE_BYTES[kind] for kind in (INTERPRETER, *kinds)), strict=True)]
    for build, arena, code in zip(BUILDS, arenas, code_bytes, strict=True):
        found.append(
            {
                "file": file,
                "core": build.core,
                "kernels": build.kernels,
                "code_bytes": code,
                "file_bytes": num_bytes,
                "flash_bytes": code + num_bytes,
                "arena_bytes": arena,
                "variables_bytes": variables,
                "stack_bytes": STACK_BYTES,
                "ram_bytes": arena + variables + STACK_BYTES,
            }
        )
    return found
