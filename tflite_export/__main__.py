"""Exports and verifies a trained student: python -m tflite_export --run_dir=runs/NAME."""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import dataclasses
import pathlib
import sys

from absl import app

from qkd_tf.console import command_line
from qkd_tf.console.command_line import CommandFlags
from qkd_tf.contract.targets import TARGETS, WEIGHT_STORAGES
from tflite_export.bundles.vela import ACCELERATORS, Vela
from tflite_export.export_folder import ExportFolder, target_titled
from tflite_export.exporter import export
from tflite_export.inference.runtimes import RUNTIMES, RUNTIMES_HELP
from tflite_export.load import ExportError
from tflite_export.proof.gate import Gate
from tflite_export.rebuilding.rebuild import INPUT_TYPES

FLAGS = CommandFlags()
FLAGS.DEFINE_string(
    "run_dir",
    None,
    "Folder of a finished training run, where export/ and report.html are written; a second target has export-TARGET/.",
)
FLAGS.DEFINE_enum(
    "target",
    None,
    list(TARGETS),
    "What the file is for; it decides storage, input and who judges. Default: what the run was trained for.",
)
FLAGS.DEFINE_enum(
    "weight_storage",
    None,
    WEIGHT_STORAGES,
    "int4 packs kernels of at most 4 bits, narrow range, two a byte, for phones those that are no slower for it: Dense "
    "layers and 1x1 convolutions, which become FULLY_CONNECTED; int4_all packs all of them; auto is the target's. "
    "Default: what the run was trained for, and auto for another target.",
)
FLAGS.DEFINE_enum(
    "input_type",
    None,
    INPUT_TYPES,
    "uint8 takes pixels as a camera gives them, int8 pixel - 128. Default: uint8 for phone, else int8.",
)
FLAGS.DEFINE_list("runtimes", list(RUNTIMES), RUNTIMES_HELP)
FLAGS.DEFINE_float(
    "max_top1_difference",
    Gate.max_top1_difference,
    "Gate: points of top-1 that a file may be below the student in floating point even where that is beyond chance.",
)
FLAGS.DEFINE_float(
    "min_accuracy_p",
    Gate.min_accuracy_p,
    "Gate: how probable it must be at least that a file which is further below is so by chance; 0 refuses none for it.",
)
FLAGS.DEFINE_float("min_top1_agreement", None, "Retired: agreement is reported; --min_accuracy_p has taken its place.")
FLAGS.DEFINE_enum("vela_accelerator", None, ACCELERATORS, f"NPU that Vela compiles for. Default: {Vela.accelerator}.")
FLAGS.DEFINE_string("vela_system_config", None, "Vela's system configuration. Default: Vela's for the accelerator.")
FLAGS.DEFINE_string("vela_memory_mode", None, "Vela's memory mode. Default: Vela's for the accelerator.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    try:
        if not FLAGS.run_dir:
            raise ExportError("--run_dir is missing; give the folder of a finished run, such as runs/demo")
        if FLAGS.min_top1_agreement is not None:
            raise ExportError(
                "--min_top1_agreement is retired: how many classes agree is reported, and refuses no file; one that is "
                "worse than the student beyond chance is refused, see --min_accuracy_p and --max_top1_difference"
            )
        gate = Gate(FLAGS.max_top1_difference, FLAGS.min_accuracy_p)
        options = {field.name: FLAGS[f"vela_{field.name}"].value for field in dataclasses.fields(Vela)}
        given = {name: value for name, value in options.items() if value}
        vela = Vela(**given) if given else None
        verification = export(
            FLAGS.run_dir, FLAGS.target, FLAGS.weight_storage, FLAGS.input_type, gate, FLAGS.runtimes, vela
        )
    except (ExportError, OSError) as error:
        sys.exit(f"error: {error}")
    if not verification["passed"]:
        place = ExportFolder.of(pathlib.Path(FLAGS.run_dir), target_titled(verification["target"]))
        sys.exit(f"error: {place.path}/model.tflite was refused; {place.report} has the reasons")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
