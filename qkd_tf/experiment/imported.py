"""What a user calls by "package.module:function"."""

import importlib
from typing import Any

from qkd_tf.experiment.checks import ExperimentError


def imported(name: str) -> Any:
    """The function, or whatever has that name; Python looks in its path, where a command has the current folder.

    Raises:
      ExperimentError: no such module, or nothing of that name in it.
    """
    module_name, _, function = name.partition(":")
    try:
        found = importlib.import_module(module_name)
        for part in function.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        remedy = "give package.module:function; Python looks in the folder where it was started, and in its packages"
        if module_name.endswith(".py"):
            remedy = f"give {module_name.removesuffix('.py').replace('/', '.')}:{function}"
        raise ExperimentError(f"{name} cannot be imported: {error}; {remedy}") from error
    return found
