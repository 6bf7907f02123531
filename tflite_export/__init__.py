"""From a training run's handoff to a verified integer .tflite.

In Python, start with `tflite_export.export`.
"""

import importlib
import os
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

# Name -> the module that has it; they import TensorFlow, so each is imported only when it is asked for.
DOOR = {
    "export": "tflite_export.api",
    "ExportError": "tflite_export.load",
    "Exported": "tflite_export.exported",
}


def __getattr__(name: str) -> Any:
    if name in DOOR:
        return getattr(importlib.import_module(DOOR[name]), name)
    from qkd_tf.console.nearest import meant  # noqa: PLC0415  only for the message

    hint = meant(name, DOOR, "")
    raise AttributeError(f"module {__name__} has no attribute {name}{hint and '; ' + hint}")
