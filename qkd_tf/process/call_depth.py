"""How deep calls may nest while networks are built: tf_keras follows one to its input by a call for each layer."""

import contextlib
import sys
from collections.abc import Iterator

# Python's own limit, 1,000, is too low for a ResNetRS350 once its swish is layers of its own. Python's calls take no
# place on C's stack, so a higher limit is safe.
LIMIT = 10_000


@contextlib.contextmanager
def for_deep_networks() -> Iterator[None]:
    """A context in which calls may nest to LIMIT, or to the process's own limit if that is higher."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
