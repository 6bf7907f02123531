import subprocess
import sys


def test_a_command_prints_nothing_but_its_own_line():
    command = [
        sys.executable,
        "-m",
        "qkd_tf.preflight",
        "--run_dir=runs/none",
        "--dataset=digits",
        "--student=none",
        "--phases=",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: unknown --student 'none'")
    assert len(done.stderr.splitlines()) == 1
