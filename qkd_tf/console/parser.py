"""The command line of a command that starts without absl."""

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"error: {message}; --help shows what it takes")
