"""Trains a low-bit student with QKD: python -m qkd_tf.train --flagfile=configs/NAME.flags.

The defaults of --dataset and --student are those of the benchmark: for your own pictures and model give both, or let
python -m qkd_tf.new write a flag file.
"""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import sys

from qkd_tf import flags
from qkd_tf.console import command_line
from qkd_tf.console.words import in_a_line, require_flags_only
from qkd_tf.experiment import ExperimentError, require_networks, require_set
from qkd_tf.process.stop_signals import Stopped
from qkd_tf.storage.folder_lock import FolderInUseError
from qkd_tf.storage.run_folder import RunFolder


def _at_next_start(folder: RunFolder | None) -> str:
    return folder.at_next_start if folder else "starts again"


def main(argv: list[str]) -> None:
    require_flags_only(argv, flags.FLAGS, ("student", "dataset", "run_dir"))
    folder = None
    try:
        flags.adopt_begun()
        experiment = flags.experiment_from_flags()
        require_networks(experiment)
        require_set(experiment.data)
        experiment.require_measurable()
        folder = RunFolder(experiment.run_dir, flags.flag_lines())
        folder.require_free()
        for note in flags.notes():
            print(note)
        # After all checks that need only flags and files: TensorFlow takes seconds to import.
        from qkd_tf.console import quiet  # noqa: F401, PLC0415
        from qkd_tf.train.job import train  # noqa: PLC0415

        train(experiment, flags.flag_lines())
    except (ExperimentError, FolderInUseError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_a_line(error)}; fix that, and the same command {_at_next_start(folder)}")
    except Stopped as stopped:
        print(f"stopped by {stopped}; the same command {_at_next_start(folder)}", file=sys.stderr)
        sys.exit(stopped.exit_code)
    done = "training" if experiment.training.phases else "calibration"
    print(f"{done} finished; next: python -m tflite_export --run_dir={experiment.run_dir}")


if __name__ == "__main__":
    command_line.run(main, flags.FLAGS)
