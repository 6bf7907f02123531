"""Ctrl-C ends a command in one line, not in a traceback of whatever was being imported or computed.

A command imports this module before anything slow; no module that a user's program imports may do so:

    if __name__ == "__main__":
        from qkd_tf.console import interrupts  # noqa: F401

    # isort: split

Training has its own handlers, which first save the current step (`process.stop_signals`).
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
