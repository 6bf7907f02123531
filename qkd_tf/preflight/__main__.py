"""Shows the student layer by layer before anything is trained: python -m qkd_tf.preflight --flagfile=FILE.

The defaults of --dataset and --student are those of the benchmark: for your own pictures and model give both, or let
python -m qkd_tf.new write a flag file.
"""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import sys

from qkd_tf import flags
from qkd_tf.console import command_line
from qkd_tf.console.words import require_flags_only
from qkd_tf.experiment import ExperimentError, require_networks, require_set

FLAGS = flags.FLAGS.extended()  # those of the training, and its own
FLAGS.DEFINE_integer(
    "num_classes",
    0,
    "Number of classes of a data set that is not on this machine; needs --image_size, and --image_channels unless 3.",
)


def main(argv: list[str]) -> None:
    require_flags_only(argv, FLAGS, ("student", "dataset"))
    try:
        experiment = flags.experiment_from_flags(FLAGS, trains=False)
        require_networks(experiment)
        if not FLAGS.num_classes:
            require_set(experiment.data)
        # After all checks that need only flags and files: TensorFlow takes seconds to import.
        from qkd_tf.console import quiet  # noqa: F401, PLC0415
        from qkd_tf.preflight.look import look  # noqa: PLC0415

        look(experiment, FLAGS.num_classes)
    except ExperimentError as error:
        sys.exit(f"error: {error}")
    own_run = "" if FLAGS["run_dir"].present else " and --run_dir=runs/NAME"
    print(f"next: python -m qkd_tf.train with the same flags{own_run}")


if __name__ == "__main__":
    command_line.run(main, FLAGS)
