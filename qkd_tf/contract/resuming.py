"""What to say where a run lacks what the end of its training writes."""

import pathlib

from qkd_tf.contract.origin import IN_MEMORY

FLAGS_FILE = "flags.txt"


def to_its_end(run_dir: str | pathlib.Path) -> str:
    """What the user does so that a run is finished: an imperative."""
    file = pathlib.Path(run_dir, FLAGS_FILE)
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    if any(f"={IN_MEMORY}" in line for line in lines):
        return f"make the call of qkd_tf.fit with run_dir={str(run_dir)!r} again, which resumes"
    return f"run python -m qkd_tf.train{f' --flagfile={file}' * bool(lines)} to its end first"
