"""GPUs beside a CPU: what they compute, what never, and how their memory is taken. None was at hand to try."""

import contextlib

import tensorflow as tf

# Whole numbers are summed in floats, exactly on a CPU. A GPU's kernels may take TF32, whose products have 11 bits.
EXACT = "/CPU:0"


def on_cpu() -> contextlib.AbstractContextManager:
    """Where integers are predicted, whatever devices there are."""
    return tf.device(EXACT)


def grow_memory() -> None:
    """Has TensorFlow take a GPU's memory as it needs it, not all of it at its start; kept where it has started."""
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


def use(num_gpus: int) -> str:
    """What the GPUs of a machine would do, for people."""
    if not num_gpus:
        return "no GPU: the CPU trains, calibrates and predicts"
    others = f"; the other{'s' if num_gpus > 2 else ''} with --strategy=mirrored" if num_gpus > 1 else ""
    return (
        f"a GPU trains, calibrates and evaluates{others}; the CPU decodes pictures and predicts integers; "
        "qkd_tf has not been run on a GPU"
    )
