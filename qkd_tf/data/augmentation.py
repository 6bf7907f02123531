"""A user's own augmentation of training batches: looked at once, then a part of the pipeline."""

import dataclasses
import hashlib
import random
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from qkd_tf.experiment import IN_MEMORY, DataSpec, ExperimentError, imported, require
from qkd_tf.storage.archive import first_line

Function = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
SEEDS = ((0, 1), (2, 3))  # under which it is looked at
OWN = 1  # folded into a batch's seed: what is drawn here is drawn nowhere else


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """`augment(images, seed)` as a graph.

    Attributes:
      sha256: of what it makes of some pictures, which tells one function from another.
      notes: what a user should know, one per line.
    """

    graph: Function
    sha256: str
    notes: tuple[str, ...] = ()

    def __call__(self, images: tf.Tensor, seed: tf.Tensor, share: tuple[int, int]) -> tf.Tensor:
        """Pictures [n, H, W, C] uint8 of a batch -> the same shape, uint8.

        Args:
          seed: [2], of the batch.
          share: which of how many equal parts of the batch they are; each part is drawn by a seed of its own.
        """
        for number in (OWN, share[0]):
            seed = tf.random.experimental.stateless_fold_in(seed, tf.constant(number, tf.int32))
        return tf.ensure_shape(self.graph(images, seed), images.shape)


def open_augmentation(
    spec: DataSpec, shape: tuple[int, int, int], given: Function | None = None
) -> Augmentation | None:
    """The function of `DataSpec.augment`, looked at on noise; None where there is none.

    It is called as augment(images, seed): images [N, H, W, C] uint8, 0 to 255, cropped and mirrored already, or signals
    in the steps of their input, [N, T, C] too; seed [2] int32, as tf.random.stateless_uniform takes it. It returns
    images of the same shape and type, made by TensorFlow's operations from these two arguments alone.

    Args:
      shape: [H, W, C] of a picture, or that of a signal.
      given: the function itself, where Python hands it over.

    Raises:
      ExperimentError: nothing there, or something that does not do as said above.
    """
    name = spec.augment
    if not name:
        return None
    require(
        given is not None or not name.startswith(IN_MEMORY),
        f"--augment={name} was handed over in Python and is not kept; call qkd_tf.fit, or give package.module:function",
    )
    function = imported(name) if given is None else given
    images = np.random.default_rng(0).integers(0, 256, (spec.batch_size, *shape)).astype(np.uint8)
    graph, chance = tf.function(function), _state_of_chance()
    found = [_made(graph, name, images, seed) for seed in SEEDS]
    again = [_made(other, name, images, SEEDS[0]) for other in (graph, tf.function(function))]
    require(
        chance == _state_of_chance() and all(np.array_equal(found[0], other) for other in again),
        f"--augment={name} draws random numbers that its seed does not decide, so no run could go on as it was; take "
        "tf.random.stateless_uniform(shape, seed) and the like, not random, numpy.random or tf.random.uniform",
    )
    seeded = not np.array_equal(*found)
    notes = () if seeded else (f"note: --augment={name} makes the same of a picture whatever its seed is",)
    return Augmentation(graph, hashlib.sha256(np.stack(found).tobytes()).hexdigest(), notes)


def _made(graph: Function, name: str, images: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
    """What a function makes of a batch, where it is what it has to be."""
    try:
        with tf.device("CPU"):  # as the pipeline is
            made = graph(tf.constant(images), tf.constant(seed, tf.int32))
    except Exception as error:  # of a user's own code
        raise ExperimentError(
            f"--augment={name} fails as augment(images, seed) in a graph of TensorFlow: {_reason(error)}; it may use "
            "TensorFlow's operations alone, and neither NumPy nor .numpy()"
        ) from error
    require(
        isinstance(made, tf.Tensor),
        f"--augment={name} returns a {type(made).__name__}; the images are expected, one tensor",
    )
    values = made.numpy()
    described = f"{values.dtype} {values.shape}"
    if values.size and values.dtype.kind in "fiu" and values.dtype != np.uint8:
        described += f" from {values.min():g} to {values.max():g}"
    require(
        values.dtype == np.uint8 and values.shape == images.shape,
        f"--augment={name} makes {described} of uint8 {images.shape}; the same shape and uint8, 0 to 255, are "
        "expected: end it with tf.saturate_cast(tf.round(images), tf.uint8)",
    )
    return values


def _reason(error: Exception) -> str:
    """The error itself, which autograph puts behind the lines of the user's code."""
    told = [line.strip() for line in str(error).splitlines() if line.strip()]
    return first_line(ValueError(told[-1]), 160) if told and "in user code:" in told[0] else first_line(error, 160)


def _state_of_chance() -> str:
    """Of Python's and NumPy's global random numbers."""
    return repr((random.getstate(), [np.asarray(part).tolist() for part in np.random.get_state()]))
