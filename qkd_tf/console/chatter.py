"""Hides what native libraries print about themselves; their warnings and errors stay."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# What TensorFlow says when it is imported, whatever TF_CPP_MIN_LOG_LEVEL is, and LiteRT when it takes XNNPACK.
CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|I0000 |INFO: Created TensorFlow Lite XNNPACK delegate"
    rb"|To enable the following instructions:"
)


def raise_threshold() -> None:
    """Lets TensorFlow's native code print only fatal errors, unless the environment says otherwise.

    A command calls it before it imports TensorFlow; it holds for the whole process.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Holds back what the process writes to stderr in this context, and prints it at the end without CHATTER."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            told = b"".join(line for line in kept if not CHATTER.match(line))
            os.write(2, told)
