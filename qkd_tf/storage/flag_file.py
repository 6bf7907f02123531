"""Flag files that commands write, each for a new run."""

import pathlib

from qkd_tf.experiment import require
from qkd_tf.storage.writable import require_writable


def run_of(output: pathlib.Path, run_dir: pathlib.Path) -> pathlib.Path:
    """The folder beside `run_dir` into which the flag file `output` trains.

    Raises:
      ExperimentError: as `require_new`.
    """
    new = run_dir.parent / output.stem
    require_new(output, new)
    return new


def require_new(output: pathlib.Path, run_dir: pathlib.Path, overwrite: bool | None = None) -> None:
    """Raises ExperimentError if the flag file cannot be written, or it or its run folder exists already.

    Args:
      overwrite: whether an existing file is overwritten (--overwrite); None for commands without that flag.
    """
    require(
        output.suffix == ".flags", f"--output={output} does not end in .flags; name the new run, such as small.flags"
    )
    require(output.parent.is_dir(), f"--output={output}: there is no folder {output.parent}; make it first")
    require_writable(output.parent, f"--output={output}")
    another = "give another name, or move it away"
    remedies = {output: another if overwrite is None else "give another name, or --overwrite", run_dir: another}
    for path, remedy in remedies.items():
        may_be_there = path == output and overwrite and path.is_file()
        require(not path.exists() or may_be_there, f"--output={output}: {path} is there already; {remedy}")
