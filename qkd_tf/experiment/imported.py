"""Imports a user's "package.module:function", and describes an exception in it."""

import importlib
import inspect
import pathlib
import pkgutil
import sys
import sysconfig
import textwrap
import traceback
import types
from typing import Any

from qkd_tf.console.nearest import nearest
from qkd_tf.experiment.checks import ExperimentError

INSTALLED = {"site-packages", "dist-packages"}  # folders of packages
ALIKE = 0.8  # similarity of two names of modules that may be one, of which there are hundreds
WIDTH = 300  # characters of an exception's message: Keras' own may be pages


def imported(name: str) -> Any:
    """The function, or whatever has that name, found in Python's path, which includes a command's current folder.

    Raises:
      ExperimentError: no such module, nothing of that name in it, or the module's own code fails.
    """
    module_name, _, function = name.partition(":")
    if module_name.endswith(".py"):
        raise ExperimentError(f"{name} begins with a file's path; {_of_file(pathlib.PurePath(module_name), function)}")
    found: Any = None
    try:
        found = importlib.import_module(module_name)
        for part in function.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # of a user's own code
        remedy = "give package.module:function; Python looks in the folder where it was started, and in its packages"
        if place(error):
            remedy = f"fix that; python -c 'import {module_name}' shows the whole traceback"
        elif near := _nearest(name, found, error):
            remedy = f"did you mean {near}?"
        elif isinstance(error, ModuleNotFoundError) and "." not in module_name:
            remedy = f"there is no {module_name}.py in {pathlib.Path.cwd()}, and no package of that name"
        elif inspect.ismodule(found) and (own := _functions(found)):
            remedy = f"its functions are {', '.join(own)}"
        raise ExperimentError(f"{name} cannot be imported: {failure(error)}; {remedy}") from error
    return found


def _of_file(path: pathlib.PurePath, function: str) -> str:
    """What to give instead of a file's path: a module's name, which Python finds from where it was started."""
    if path.is_absolute() or ".." in path.parts:
        return f"give {path.stem}:{function}, and start in {path.parent} or put that folder into PYTHONPATH"
    return f"give {'.'.join(path.with_suffix('').parts)}:{function}"


def _nearest(name: str, found: Any, error: BaseException) -> str:
    """The name with the most similar module or attribute of `found` instead of the missing one; "" for none."""
    if isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name):
        parent, dot, absent = error.name.rpartition(".")
        near = nearest(absent, _modules(parent), ALIKE)
        return near and parent + dot + near + name.removeprefix(error.name)
    missing = error.name if isinstance(error, AttributeError) and found is not None else None
    near = nearest(missing, dir(found)) if missing and name.endswith(missing) else ""
    return near and name.removesuffix(missing or "") + near


def _functions(module: types.ModuleType) -> list[str]:
    """Names of the functions and classes that a module defines itself."""
    found = inspect.getmembers(module, lambda value: inspect.isfunction(value) or inspect.isclass(value))
    return [name for name, value in found if value.__module__ == module.__name__]


def _modules(package: str) -> list[str]:
    """What can be imported from a package that is imported, or by its name alone where it is ""."""
    path = getattr(sys.modules[package], "__path__", []) if package else None
    names = [module.name for module in pkgutil.iter_modules(path)]
    return names if package else [name for name in names if name not in sys.stdlib_module_names]


def failure(error: BaseException) -> str:
    """An exception in one line of bounded length, after its `place`."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)  # whose text has the place once more
    message = textwrap.shorten(message, WIDTH, placeholder=" …")
    return ": ".join(part for part in (place(error), type(error).__name__, message) if part)


def place(error: BaseException) -> str:
    """File and line in the user's own code that raised an exception or called what raised it; empty if none of it ran.

    Call it where the exception is caught; that frame is ignored.
    """
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}, line {error.lineno}"
    called = error.__traceback__ and error.__traceback__.tb_next
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(called)]
    own = [f"{file}, line {line}" for file, line in places if _is_own(file)]
    return own[-1] if own else ""


def _is_own(file: str) -> bool:
    """Whether a file belongs neither to Python nor to an installed package."""
    path = pathlib.Path(file)
    of_python = pathlib.Path(sysconfig.get_path("stdlib"))
    return path.is_absolute() and of_python not in path.parents and INSTALLED.isdisjoint(path.parts)
