"""Calls of public functions whose arguments do not fit: an error in one line, with the name that was probably meant."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from qkd_tf.console.counting import counted
from qkd_tf.console.nearest import meant

P = ParamSpec("P")
R = TypeVar("R")


def arguments_checked(
    error: type[Exception], options: Collection[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator under which a call that does not fit the function's signature raises `error`, and no TypeError.

    Args:
      options: names that a function with **options takes, besides its arguments.
    """

    def decorator(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if told := _misfit(function.__name__, signature, args, kwargs, options):
                raise error(told)
            return function(*args, **kwargs)

        return checked

    return decorator


def _misfit(
    name: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Collection[str]
) -> str:
    """What is wrong with a call, in one line; "" if nothing is."""
    kinds = inspect.Parameter
    takes = {key: row for key, row in signature.parameters.items() if row.kind is not kinds.VAR_KEYWORD}
    known = [*takes, *(option for option in options if option not in takes)]
    by_place = [key for key, row in takes.items() if row.kind is kinds.POSITIONAL_OR_KEYWORD]
    for key in kwargs:
        if key not in known:
            otherwise = f"it takes {', '.join(takes)}" + ", and the flags of docs/flags.md" * bool(options)
            return f"{name} has no argument {key}; {meant(key, known, otherwise)}"
    if len(args) > len(by_place):
        return (
            f"{name} takes {counted(len(by_place), 'argument')} without names ({', '.join(by_place)}), "
            f"and {len(args)} are given; name the others"
        )
    twice = [key for key in by_place[: len(args)] if key in kwargs]
    if twice:
        return f"{name} is given {twice[0]} twice, by its place and by its name; leave one out"
    missing = [key for key in by_place[len(args) :] if takes[key].default is kinds.empty and key not in kwargs]
    needed = [key for key in by_place if takes[key].default is kinds.empty]
    return f"{name} lacks {' and '.join(missing)}; call {name}({', '.join(needed)}, …)" if missing else ""
