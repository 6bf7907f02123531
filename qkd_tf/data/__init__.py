"""Images: where they come from (`open_source`), the deterministic batches made of them (`pipelines`), and the test
split of a finished run (`Rereading`)."""

import importlib
from typing import Any

# Name -> the module that has it. They import TensorFlow, and `data.prepare` has its flags to read before that.
DOOR = {
    "Examples": "source",
    "Function": "augmentation",
    "PictureDigest": "source",
    "Rereading": "rereading",
    "Source": "source",
    "Splits": "pipeline",
    "describe": "sources",
    "in_memory": "source",
    "load": "pipeline",
    "notes_on_classes": "pipeline",
    "open_augmentation": "augmentation",
    "open_source": "sources",
    "pipelines": "pipeline",
    "reading": "reading_errors",
    "require_enough": "pipeline",
    "sample": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name in DOOR:
        return getattr(importlib.import_module(f"{__name__}.{DOOR[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
