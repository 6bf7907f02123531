"""Flag files that commands write, each for a new run of its own."""

import pathlib

from qkd_tf.experiment import require


def run_of(output: pathlib.Path, run_dir: pathlib.Path) -> pathlib.Path:
    """The folder beside `run_dir` into which the flag file `output` trains.

    Raises:
      ExperimentError: as `require_new`.
    """
    new = run_dir.parent / output.stem
    require_new(output, new)
    return new


def require_new(output: pathlib.Path, run_dir: pathlib.Path) -> None:
    """Raises ExperimentError: a flag file that cannot be written, or it or its run's folder is there already."""
    require(
        output.suffix == ".flags", f"--output={output} does not end in .flags; name the new run, such as small.flags"
    )
    require(output.parent.is_dir(), f"--output={output}: there is no folder {output.parent}; make it first")
    for path in (output, run_dir):
        require(not path.exists(), f"--output={output}: {path} is there already; give another name, or move it away")
