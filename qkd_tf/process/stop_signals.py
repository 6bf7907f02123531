"""Stops on SIGTERM and SIGINT at the next point where nothing is lost."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """A signal ended the work. Like KeyboardInterrupt it is not an Exception, so error handlers do not catch it.

    Attributes:
      exit_code: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopSignals:
    """A context in which the signals raise `Stopped`: at once, or, within `deferred`, at the next `check`."""

    def __init__(self):
        self._received: int | None = None
        self._defers = False
        self._before = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # Python allows no other to set handlers
            before = {number: signal.getsignal(number) for number in NUMBERS}
            self._before = {number: handler for number, handler in before.items() if handler is not None}
            for number in self._before:  # Python could not put back a handler that is none of its own
                signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def received(self) -> bool:
        return self._received is not None

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """In this context a first signal waits for `check`, and a second one does not."""
        self._defers = True
        try:
            yield
        finally:
            self._defers = False
        self.check()

    def check(self) -> None:
        """Raises Stopped if a signal has come."""
        if self._received is not None:
            raise Stopped(self._received)

    def _receive(self, number, _frame) -> None:
        first, self._received = self._received is None, number
        if self._defers and first:
            print(f"\n{signal.Signals(number).name}: stopping at the end of this step", file=sys.stderr)
        else:
            raise Stopped(number)
