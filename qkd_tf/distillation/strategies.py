"""The strategies of tf.distribute, a row each."""

import os
from collections.abc import Callable, Mapping

import tensorflow as tf

from qkd_tf.distillation.distribution import Distribution
from qkd_tf.experiment import ExperimentError, require
from qkd_tf.process import accelerators
from qkd_tf.storage.archive import first_line


def _multi_worker() -> tf.distribute.Strategy:
    require(
        "TF_CONFIG" in os.environ,
        "--strategy=multi_worker needs TF_CONFIG with the addresses of all workers and the index of this one; "
        "use --strategy=mirrored for the devices of one machine",
    )
    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        if not resolver.cluster_spec():
            raise ValueError("it names no worker")
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except tf.errors.OpError as error:
        raise ExperimentError(
            f"TF_CONFIG={os.environ['TF_CONFIG']}: this worker cannot start ({first_line(error, 120)}); "
            "give an address of this machine whose port is free"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExperimentError(
            f"TF_CONFIG={os.environ['TF_CONFIG']} is not understood ({first_line(error, 120)}); "
            """give {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}"""
        ) from error


def _tpu() -> tf.distribute.Strategy:
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise ExperimentError(
            f"--strategy=tpu finds no TPU named {name} ({first_line(error, 120)}); "
            "start it on a TPU machine, or name one in TPU_NAME"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


STRATEGIES: Mapping[str, Callable[[], tf.distribute.Strategy | None]] = {
    "default": lambda: None,
    "mirrored": tf.distribute.MirroredStrategy,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def start(strategy: str) -> Distribution:
    """Joins the other devices and machines; before anything else that TensorFlow does.

    Args:
      strategy: a key of STRATEGIES.

    Raises:
      ExperimentError: no TPU, or no understandable TF_CONFIG.
    """
    accelerators.grow_memory()
    return Distribution(STRATEGIES[strategy]())
