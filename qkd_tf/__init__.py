"""Quantization-aware knowledge distillation (QKD) for Keras, aimed at integer TFLite files.

TFMOT works on Keras 2, which lives on as `tf_keras`. TensorFlow decides at its first import which Keras it exposes, so
the choice is made here, before any module of the package can import TensorFlow.

In Python, start with `qkd_tf.fit`. The commands are modules, run with `python -m`.
"""

import importlib
import os
import platform

os.environ["TF_USE_LEGACY_KERAS"] = "1"
if platform.machine() in ("x86_64", "AMD64"):
    # TensorFlow would take "0" on processors without AVX-512, but oneDNN is faster there too (benchmarks.onednn).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"

# Name -> the module that has it. Some import TensorFlow, so each is imported only when it is asked for.
DOOR = {
    "fit": "qkd_tf.api",
    "Run": "qkd_tf.outcome.run",
    "ExperimentError": "qkd_tf.experiment",
    "FolderInUseError": "qkd_tf.storage.folder_lock",
}


def __getattr__(name: str):
    if name in DOOR:
        return getattr(importlib.import_module(DOOR[name]), name)
    from qkd_tf.console.nearest import meant  # noqa: PLC0415  only for the message

    where = "; export is a function of tflite_export" if name == "export" else ""
    hint = meant(name, DOOR, "")
    raise AttributeError(f"module {__name__} has no attribute {name}{where or hint and '; ' + hint}")
