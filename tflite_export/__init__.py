"""From a training run's handoff to a verified integer .tflite.

In Python, `tflite_export.export` is the door.
"""

import importlib
import os
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

DOOR = ("export",)  # of tflite_export.exporter, which imports TensorFlow and is had when it is asked for


def __getattr__(name: str) -> Any:
    if name in DOOR:
        return getattr(importlib.import_module("tflite_export.exporter"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
