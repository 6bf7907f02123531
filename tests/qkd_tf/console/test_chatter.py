import os
import sys

import pytest

from qkd_tf.console.chatter import quiet


def test_chatter_is_left_out_and_warnings_stay(capfd):
    lines = [
        "I0000 00:00:1.2 1 port.cc:153] oneDNN custom operations are on.",
        "W0000 00:00:1.2 1 cpu.cc:1] memory is short",
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
        "E0000 00:00:1.2 1 cuda.cc:1] failed",
    ]
    with quiet():
        os.write(2, ("\n".join(lines) + "\n").encode())
        print("a line of ours", file=sys.stderr)
    told = capfd.readouterr().err
    assert lines[1] in told and lines[3] in told and lines[0] not in told and lines[2] not in told


def test_what_was_said_before_an_error_is_not_lost(capfd):
    with pytest.raises(ValueError, match="broken"), quiet():
        os.write(2, b"the reason\n")
        raise ValueError("broken")
    os.write(2, b"stderr is stderr again\n")
    assert capfd.readouterr().err == "the reason\nstderr is stderr again\n"
