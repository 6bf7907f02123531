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
    was = next((line.partition("=")[2] for line in lines if line.startswith("--run_dir=")), str(run_dir))
    moved = f" --run_dir={run_dir}" * (pathlib.Path(was).resolve() != pathlib.Path(run_dir).resolve())
    return f"run python -m qkd_tf.train{f' --flagfile={file}{moved}' * bool(lines)} to its end first"
