"""GPUs beside a CPU: what they compute, what they never do, and how they take memory. Not tried: we had none."""

import contextlib

import tensorflow as tf

# Whole numbers are summed in floats, exactly on a CPU. A GPU's kernels may take TF32, whose products have 11 bits.
EXACT = "/CPU:0"


def on_cpu() -> contextlib.AbstractContextManager:
    """The device for predicting integers, whatever devices there are."""
    return tf.device(EXACT)


def grow_memory() -> None:
    """Lets TensorFlow take GPU memory as it needs it, not all at once; without effect if it has already started."""
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


def use(num_gpus: int) -> str:
    """What the GPUs of a machine would do, in words."""
    if not num_gpus:
        return "no GPU: the CPU trains, calibrates and predicts"
    others = f"; the other{'s' if num_gpus > 2 else ''} with --strategy=mirrored" if num_gpus > 1 else ""
    return (
        f"a GPU trains, calibrates and evaluates{others}; the CPU decodes pictures and predicts integers; "
        "qkd_tf has not been run on a GPU"
    )
