"""A user's own augmentation of training batches, checked once and then part of the pipeline."""

import dataclasses
import hashlib
import inspect
import random
from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from qkd_tf.experiment import IN_MEMORY, DataSpec, ExperimentError, imported, require
from qkd_tf.storage.archive import first_line

Function = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
SEEDS = ((0, 1), (2, 3))  # under which it is looked at
OWN = 1  # folded into a batch's seed: what is drawn here is drawn nowhere else


class OfStudent(Protocol):
    """The augmentation layers of a student, as a function.

    Attributes:
      told: the layers in words.
    """

    told: str

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor: ...


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Functions augment(images, seed), one after the other, as graphs.

    Attributes:
      sha256: digest of the results on some pictures, which tells one function from another.
      notes: what a user should know, one per line.
    """

    graphs: tuple[Function, ...]
    sha256: str
    notes: tuple[str, ...] = ()

    def __call__(self, images: tf.Tensor, seed: tf.Tensor, share: tuple[int, int]) -> tf.Tensor:
        """Pictures [n, H, W, C] uint8 of a batch -> the same shape, uint8.

        Args:
          seed: [2], of the batch.
          share: (index, number) of the equal part of the batch that they are; each part has a seed of its own.
        """
        for own, graph in enumerate(self.graphs, start=OWN):
            of_graph = seed
            for number in (own, share[0]):
                of_graph = tf.random.experimental.stateless_fold_in(of_graph, tf.constant(number, tf.int32))
            images = tf.ensure_shape(graph(images, of_graph), images.shape)
        return images


def open_augmentation(
    spec: DataSpec, shape: tuple[int, int, int], given: Function | None = None, of_student: OfStudent | None = None
) -> Augmentation | None:
    """The function that `DataSpec.augment` names, then the student's layers; None if there is neither.

    The function is checked on noise. It is called as augment(images, seed). images are [N, H, W, C] uint8, 0 to 255,
    already cropped and mirrored; or signals in the steps of their input, also [N, T, C]. seed is [2] int32, as
    tf.random.stateless_uniform takes it. It returns images of the same shape and type, computed by TensorFlow
    operations from these two arguments only.

    Args:
      shape: [H, W, C] of a picture, or that of a signal.
      given: the function itself, if Python passes it.
      of_student: the layers, unless `DataSpec.student_augmentation` leaves them out.

    Raises:
      ExperimentError: there is no such function, or it does not work as described above.
    """
    parts = []
    if name := spec.augment:
        require(
            given is not None or not name.startswith(IN_MEMORY),
            f"--augment={name} was given in Python and is not saved; call qkd_tf.fit, or give package.module:function",
        )
        try:
            function = imported(name) if given is None else given
        except ExperimentError as error:
            raise ExperimentError(f"--augment: {error}") from error
        parts.append(_checked(function, f"--augment={name.removeprefix(IN_MEMORY)}", spec, shape))
    if of_student is not None and spec.student_augmentation:
        part = _checked(of_student, f"the student's {of_student.told}", spec, shape)
        told = (
            f"note: training pictures are augmented by the student's own layers, as in Keras: {of_student.told}; these "
            "are not in the file, and --nostudent_augmentation leaves them out"
        )
        # Earlier versions also mirrored and padded beside these layers, so their runs are other experiments.
        beside = hashlib.sha256(f"{part.sha256} {spec.mirrors} {spec.crop_padding}".encode()).hexdigest()
        parts.append(dataclasses.replace(part, notes=(told, *_left_to_layers(spec)), sha256=beside))
    if not parts:
        return None
    sha256 = parts[0].sha256
    for part in parts[1:]:
        sha256 = hashlib.sha256((sha256 + part.sha256).encode()).hexdigest()
    return Augmentation(sum((part.graphs for part in parts), ()), sha256, sum((part.notes for part in parts), ()))


def _left_to_layers(spec: DataSpec) -> list[str]:
    """A note on what is not done to training pictures beside the student's own layers; arrays never have it."""
    if spec.is_arrays:
        return []
    shifts = spec.crops_larger or spec.crop_padding != 0
    flags = {"mirrored (--horizontal_flip)": spec.mirrors, "shifted (--crop_padding)": shifts}
    off = [done for done, is_on in flags.items() if not is_on]
    told = f"note: beside these layers training pictures are not {' or '.join(off)}, unless you ask for it"
    return [told] if off else []


def _checked(function: Function, name: str, spec: DataSpec, shape: tuple[int, int, int]) -> Augmentation:
    """A function alone, tried on a batch of noise.

    Args:
      name: what messages call it.

    Raises:
      ExperimentError: as `open_augmentation`.
    """
    images = np.random.default_rng(0).integers(0, 256, (spec.batch_size, *shape)).astype(np.uint8)
    try:
        inspect.signature(function).bind(images, SEEDS[0])
    except TypeError as error:
        remedy = "give a function of these two arguments"
        if hasattr(function, "get_config"):  # a layer of either Keras
            remedy += ", or put the layer at the beginning of the student, where only training applies it"
        raise ExperimentError(f"{name} is called as augment(images, seed), and {error}; {remedy}") from None
    except ValueError:  # Python does not know its arguments
        pass
    graph, chance = tf.function(function), _state_of_chance()
    found = [_made(graph, name, images, seed) for seed in SEEDS]
    again = [_made(other, name, images, SEEDS[0]) for other in (graph, tf.function(function))]
    require(
        chance == _state_of_chance() and all(np.array_equal(found[0], other) for other in again),
        f"{name} draws random numbers that do not depend on its seed, so no run could be resumed exactly; "
        "use tf.random.stateless_uniform(shape, seed) and the like, not random, numpy.random or tf.random.uniform",
    )
    seeded = not np.array_equal(*found)
    told = f"note: {name} ignores its seed: a picture is changed in the same way every time"
    notes = () if seeded else (told,)
    return Augmentation((graph,), hashlib.sha256(np.stack(found).tobytes()).hexdigest(), notes)


def _made(graph: Function, name: str, images: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
    """A function's result on a batch, checked."""
    try:
        with tf.device("CPU"):  # as the pipeline is
            made = graph(tf.constant(images), tf.constant(seed, tf.int32))
    except Exception as error:  # of a user's own code
        raise ExperimentError(
            f"{name} fails as augment(images, seed) in a TensorFlow graph: {_reason(error)}; use only "
            "TensorFlow operations, neither NumPy nor .numpy()"
        ) from error
    require(
        isinstance(made, tf.Tensor),
        f"{name} returns {type(made).__name__}; one tensor of images is expected",
    )
    values = made.numpy()
    described = f"{values.dtype} {values.shape}"
    if values.size and values.dtype.kind in "fiu" and values.dtype != np.uint8:
        described += f" from {values.min():g} to {values.max():g}"
    require(
        values.dtype == np.uint8 and values.shape == images.shape,
        f"{name} turns uint8 {images.shape} into {described}; the same shape and uint8, 0 to 255, are "
        "expected: end it with tf.saturate_cast(tf.round(images), tf.uint8)",
    )
    return values


def _reason(error: Exception) -> str:
    """The error itself, which autograph prints after the lines of the user's code."""
    told = [line.strip() for line in str(error).splitlines() if line.strip()]
    return first_line(ValueError(told[-1]), 160) if told and "in user code:" in told[0] else first_line(error, 160)


def _state_of_chance() -> str:
    """The state of Python's and NumPy's global random numbers."""
    return repr((random.getstate(), [np.asarray(part).tolist() for part in np.random.get_state()]))
