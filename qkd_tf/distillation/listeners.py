"""Callbacks of a user's program."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qkd_tf.experiment import ExperimentError

Listener = Callable[[str, int, Mapping[str, float]], None]


def listener_of(callbacks: Any) -> Listener:
    """One function that calls all callbacks, in their order, each with its own copy of the logs.

    Args:
      callbacks: functions of (phase, epoch, logs), or objects with such a method on_epoch_end; one, several or None.

    Raises:
      ExperimentError: something else.
    """
    if callbacks is None:
        callbacks = ()
    listeners = [_listener(callback) for callback in (callbacks if isinstance(callbacks, Iterable) else (callbacks,))]

    def tell(phase: str, epoch: int, logs: Mapping[str, float]) -> None:
        for listener in listeners:
            listener(phase, epoch, dict(logs))

    return tell


def _listener(callback: Any) -> Listener:
    told = getattr(callback, "on_epoch_end", callback)
    try:
        inspect.signature(told).bind("self_studying", 0, {})
    except (TypeError, ValueError) as error:
        remedy = "give a function of these three arguments"
        if hasattr(callback, "set_model"):  # a callback of either Keras
            remedy = "a Keras callback takes no phase, so wrap it in such a function"
        raise ExperimentError(
            f"callback {getattr(callback, '__name__', type(callback).__name__)} cannot be called as "
            f"on_epoch_end(phase, epoch, logs): {error}; {remedy}"
        ) from None
    return told
