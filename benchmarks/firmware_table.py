"""What each operator adds to a firmware: python -m benchmarks.firmware_table TFLM

TFLM is a checkout of tflite-micro with its downloads. Links an interpreter with one or two operators, for each core and
with each kernels, and prints the rows of `tflite_export.bundles.firmware.CODE_BYTES`, bytes of flash, and static RAM.
CONV_2D is beside every other operator, so what kernels share is counted once, in the first row.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import pathlib
import sys
import tempfile

from benchmarks import boards
from benchmarks.boards import BOARDS, KERNELS, Firmware, Size, measure
from tflite_export.bundles.micro_bundle import resolver_function
from tflite_export.flatbuffer.operators import OPERATORS

SHARED, OTHER = "CONV_2D", "FULLY_CONNECTED"
ARENA, MODEL = 1024, 16
# What a bundle's classifier does, for several sets of operators: the linker keeps the one that it is told to run.
PROLOGUE = f"""
#include <new>
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
namespace tflite {{ namespace micro {{}} }}
using namespace tflite;
using namespace tflite::micro;
alignas(16) const unsigned char g_model[{MODEL}] = {{1}};
alignas(16) uint8_t g_arena[{ARENA}];
alignas(MicroInterpreter) uint8_t g_interpreter[sizeof(MicroInterpreter)];
extern "C" int run();
int main() {{ return run(); }}
"""
PROGRAM = """
extern "C" int run_%(name)s() {
  using Resolver = MicroMutableOpResolver<%(number)d>;
  alignas(Resolver) static uint8_t storage[sizeof(Resolver)];
  Resolver& resolver = *new (storage) Resolver;
  %(adds)s
  auto& interpreter = *new (g_interpreter) MicroInterpreter(GetModel(g_model), resolver, g_arena, sizeof(g_arena));
  if (interpreter.AllocateTensors() != kTfLiteOk || interpreter.Invoke() != kTfLiteOk) return 1;
  return interpreter.input(0)->bytes + interpreter.output(0)->bytes;
}
"""


def sizes(tflm: str, board: str) -> dict[str, dict[str, Size]]:
    """By kernels and operator, "" for all that is no operator, what a firmware grows by."""
    kinds = sorted({*OPERATORS, "DECODE"} - {SHARED})
    sets = [(SHARED,), (OTHER,), *((SHARED, kind) for kind in kinds)]
    found: dict[str, dict[tuple[str, ...], Size]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        source = folder / "operators.cc"
        source.write_text(PROLOGUE + "".join(map(_program, sets)))
        objects = Firmware(tflm, board, "reference").compile(folder, [source])
        for kernels in KERNELS:
            firmware = Firmware(tflm, board, kernels)
            nothing = firmware.size_of_nothing(folder) + Size(MODEL, ARENA)
            found[kernels] = {
                names: measure(firmware.link(objects, folder / "program.elf", f"run=run_{_name(names)}")) - nothing
                for names in sets
            }
    return {kernels: _rows(by_set, kinds) for kernels, by_set in found.items()}


def _name(kinds: tuple[str, ...]) -> str:
    return "_and_".join(kinds)


def _program(kinds: tuple[str, ...]) -> str:
    adds = " ".join(f"resolver.{resolver_function(kind)}();" for kind in kinds)
    return PROGRAM % {"name": _name(kinds), "number": len(kinds), "adds": adds}


def _rows(found: dict[tuple[str, ...], Size], kinds: list[str]) -> dict[str, Size]:
    alone = found[SHARED,]
    shared = found[SHARED, OTHER] - found[OTHER,]
    others = {kind: found[SHARED, kind] - alone for kind in kinds}
    return {"": alone - shared} | dict(sorted({SHARED: shared, **others}.items()))


def main(arguments: list[str]) -> None:
    tflm = " ".join(arguments)
    if reason := boards.absence(tflm):
        sys.exit(f"error: {reason}")
    columns = [rows for board in BOARDS for rows in sizes(tflm, board).values()]
    for kind in columns[0]:
        print(f'    "{kind}": ({", ".join(f"{column[kind].flash:_}" for column in columns)}),')
    ram = [sorted({column[kind].ram for column in columns}) for kind in columns[0]]
    print(f"static RAM: {ram[0]}, of an operator {sorted(set(sum(ram[1:], [])))}")


if __name__ == "__main__":
    main(sys.argv[1:])
