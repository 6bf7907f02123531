"""What to tell a user whose run has not finished training."""

import pathlib

from qkd_tf.contract.origin import IN_MEMORY

FLAGS_FILE, RESULTS_FILE = "flags.txt", "results.json"


def runs_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The finished runs in a folder that is not a run itself."""
    if (folder / FLAGS_FILE).exists() or (folder / RESULTS_FILE).exists():
        return []
    return [file.parent for file in sorted(folder.glob(f"*/{RESULTS_FILE}"))]


def resuming(run_dir: str | pathlib.Path) -> str:
    """The command that resumes a run by its flags; "" if it has none, or Python gave it data or networks in memory."""
    lines = _flag_lines(run_dir)
    if not lines or _is_of_python(lines):
        return ""
    was = next((line.partition("=")[2] for line in lines if line.startswith("--run_dir=")), str(run_dir))
    moved = f" --run_dir={run_dir}" * (pathlib.Path(was).resolve() != pathlib.Path(run_dir).resolve())
    return f"python -m qkd_tf.train --flagfile={pathlib.Path(run_dir, FLAGS_FILE)}{moved}"


def to_its_end(run_dir: str | pathlib.Path) -> str:
    """What the user must do to finish a run, as an imperative."""
    if _is_of_python(_flag_lines(run_dir)):
        return f"make the call of qkd_tf.fit with run_dir={str(run_dir)!r} again, which resumes"
    return f"run {resuming(run_dir) or 'python -m qkd_tf.train'} to its end first"


def _flag_lines(run_dir: str | pathlib.Path) -> list[str]:
    file = pathlib.Path(run_dir, FLAGS_FILE)
    return file.read_text(errors="replace").splitlines() if file.is_file() else []


def _is_of_python(lines: list[str]) -> bool:
    return any(f"={IN_MEMORY}" in line for line in lines)
