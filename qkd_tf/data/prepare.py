"""Prepares a TFDS set once, before training: python -m qkd_tf.data.prepare NAME --data_dir=DIR.

TFDS's own command, `tfds build`, needs Apache Beam even for sets that do not.
"""

if __name__ == "__main__":
    from qkd_tf.console import interrupts  # noqa: F401  Ctrl-C from here on is a line

# isort: split

import pathlib
import sys

from qkd_tf.console.invocation import spelled_as_called
from qkd_tf.console.parser import Parser
from qkd_tf.experiment import ExperimentError


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m qkd_tf.data.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="TFDS image-classification set, such as cifar10 or imagenet2012")
    parser.add_argument("--data_dir", default="", help="folder to write it to; default: that of TFDS")
    parser.add_argument(
        "--manual_dir", default="", help="folder of archives that have to be downloaded by hand (ImageNet)"
    )
    arguments = parser.parse_args(argv)
    if arguments.manual_dir and not pathlib.Path(arguments.manual_dir).is_dir():
        sys.exit(f"error: --manual_dir={arguments.manual_dir} is not a folder; give the folder of the archives")
    # After all checks that need only flags and files: TensorFlow takes seconds to import.
    from qkd_tf.console import quiet  # noqa: F401, PLC0415
    from qkd_tf.data.preparation import prepare  # noqa: PLC0415

    try:
        print(prepare(arguments.name, arguments.data_dir, arguments.manual_dir))
    except ExperimentError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    with spelled_as_called():
        main()
