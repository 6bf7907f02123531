"""Exports and verifies a trained student: python -m tflite_export --run_dir=runs/NAME."""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import dataclasses
import pathlib
import sys

from qkd_tf.console import command_line
from qkd_tf.console.command_line import CommandFlags
from qkd_tf.console.words import in_a_line, require_flags_only
from qkd_tf.contract.gate import Gate
from qkd_tf.contract.targets import INPUT_TYPES, TARGETS, WEIGHT_STORAGES
from tflite_export.bundles.vela import ACCELERATORS, Vela
from tflite_export.export_error import ExportError
from tflite_export.export_folder import ExportFolder, target_titled
from tflite_export.finished_run import results_of
from tflite_export.inference.runtimes import RUNTIMES, RUNTIMES_HELP, check_names

FLAGS = CommandFlags()
FLAGS.DEFINE_string(
    "run_dir",
    None,
    "Folder of a finished training run. export/ and report.html are written there; a further target gets "
    "export-TARGET/.",
)
FLAGS.DEFINE_enum(
    "target",
    None,
    list(TARGETS),
    "Device that the file is for. It decides how weights are stored, the input type and which runtime is the judge. "
    "Default: the --target of the training.",
)
FLAGS.DEFINE_enum(
    "weight_storage",
    None,
    WEIGHT_STORAGES,
    "How kernels are stored. int4 packs kernels of at most 4 bits (narrow range) two per byte; on phones only those "
    "that run no slower, Dense layers and 1x1 convolutions, which become FULLY_CONNECTED. int4_all packs all of them. "
    "auto is the default of the target. Default: the --weight_storage of the training; auto for another target.",
)
FLAGS.DEFINE_enum(
    "input_type",
    None,
    INPUT_TYPES,
    "Type of the input. uint8 takes pixels as a camera gives them, int8 takes pixel - 128. Default: uint8 for phone, "
    "otherwise int8.",
)
FLAGS.DEFINE_list("runtimes", list(RUNTIMES), RUNTIMES_HELP)
FLAGS.DEFINE_float(
    "max_top1_difference",
    Gate.max_top1_difference,
    "A file passes if its top-1 is at most this many points below the student's in floating point.",
)
FLAGS.DEFINE_float(
    "min_accuracy_p",
    Gate.min_accuracy_p,
    "A file that exceeds --max_top1_difference is refused if the probability of such a difference by chance is below "
    "this value; 0: refuse no file for its accuracy.",
)
FLAGS.DEFINE_float("min_top1_agreement", None, "Removed.")
FLAGS.hide("min_top1_agreement")  # whoever has it in a script is told what took its place
FLAGS.DEFINE_enum("vela_accelerator", None, ACCELERATORS, f"NPU that Vela compiles for. Default: {Vela.accelerator}.")
FLAGS.DEFINE_string("vela_system_config", None, "Vela's system configuration. Default: Vela's for the accelerator.")
FLAGS.DEFINE_string("vela_memory_mode", None, "Vela's memory mode. Default: Vela's for the accelerator.")


def main(argv: list[str]) -> None:
    require_flags_only(argv, FLAGS, ("run_dir",))
    try:
        if not FLAGS.run_dir:
            raise ExportError("--run_dir is missing; give the folder of a finished run, such as runs/demo")
        if FLAGS.min_top1_agreement is not None:
            raise ExportError(
                "--min_top1_agreement was removed; leave it out: top-1 agreement is reported and refuses no file, "
                "--min_accuracy_p and --max_top1_difference decide which accuracy is refused"
            )
        results_of(pathlib.Path(FLAGS.run_dir))
        check_names(FLAGS.runtimes)
        gate = Gate(FLAGS.max_top1_difference, FLAGS.min_accuracy_p)
        options = {field.name: FLAGS[f"vela_{field.name}"].value for field in dataclasses.fields(Vela)}
        given = {name: value for name, value in options.items() if value}
        vela = Vela(**given) if given else None
        # After all checks that need only flags and files: TensorFlow takes seconds to import.
        from qkd_tf.console import quiet  # noqa: F401, PLC0415
        from tflite_export.exporter import export  # noqa: PLC0415

        verification = export(
            FLAGS.run_dir, FLAGS.target, FLAGS.weight_storage, FLAGS.input_type, gate, FLAGS.runtimes, vela
        )
    except (ExportError, OSError) as error:
        sys.exit(f"error: {in_a_line(error)}")
    if not verification["passed"]:
        place = ExportFolder.of(pathlib.Path(FLAGS.run_dir), target_titled(verification["target"]))
        sys.exit(f"error: {place.path}/model.tflite was refused; {place.report} has the reasons and what to do")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
