"""Ctrl-C ends a command in a line, and not in the traceback of whatever was being imported or computed.

A command, and nothing that a user's program imports, imports this module before all that takes time:

    if __name__ == "__main__":
        from qkd_tf.console import interrupts  # noqa: F401

    # isort: split

Training has handlers of its own, which save the step at hand first (`process.stop_signals`).
"""

import signal
import sys
import types

EXIT_CODE = 128 + signal.SIGINT


def _end(number: int, frame: types.FrameType | None) -> None:
    print("\nstopped by SIGINT", file=sys.stderr)
    sys.exit(EXIT_CODE)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as by nohup
    signal.signal(signal.SIGINT, _end)
