"""Quantization-aware knowledge distillation (QKD) for Keras, made for TFLite.

TFMOT works on Keras 2, which lives on as `tf_keras`; TensorFlow decides which
Keras it shows at its first import, so the choice is made here, before any
module of the package can import TensorFlow.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"

__version__ = "0.1.0"
