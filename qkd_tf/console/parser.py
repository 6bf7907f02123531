"""The command line of commands that start without absl."""

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"error: {message}; --help shows what it takes")
