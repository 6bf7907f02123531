"""What can be seen of a data set before anything is chosen: number of examples, sizes, grey or colour."""

import contextlib
import dataclasses
import itertools

import numpy as np
import tensorflow as tf

from qkd_tf import data
from qkd_tf.experiment import DataSpec

NUM_LOOKED_AT = 64  # training pictures
ANY_SIDE = 224  # size for which pictures of several sizes are opened; any will do, because they are looked at as stored
NUM_NAMED = 5  # classes that a line names; the others are counted


@dataclasses.dataclass(frozen=True)
class Survey:
    """A data set whose examples were looked at.

    Attributes:
      sizes: heights and widths of the stored pictures, each once; for a folder of all pictures, else of those that were
        looked at. Empty for signals.
      is_grey: whether each pixel that was looked at has equal channels.
    """

    name: str
    source: data.Source
    sizes: tuple[tuple[int, int], ...]
    is_grey: bool

    @property
    def has_pictures(self) -> bool:
        return self.source.input_params is None

    @property
    def channels(self) -> int:
        """Number of channels that the set gives by default."""
        return self.source.image_shape[-1]

    @property
    def shorter_side(self) -> int:
        """Median of the pictures' shorter sides, in pixels."""
        return int(np.median([min(size) for size in self.sizes]))

    def line(self) -> str:
        """What was seen, in one line."""
        source, names = self.source, self.source.label_names
        named = ", ".join(names[:NUM_NAMED]) + (", …" if len(names) > NUM_NAMED else "")
        numbers = [f"{getattr(source, part).num_examples:,}" for part in ("train", "validation", "test")]
        examples = "pictures" if self.has_pictures else f"signals of shape {source.image_shape}"
        text = f"{self.name}: {len(names)} classes ({named}); {numbers[0]} {examples} for training, {numbers[1]} for "
        text += f"validation, {numbers[2]} for the test"
        if self.has_pictures:
            smallest, *others = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
            text += f"; {told(smallest)}" + (f" to {told(others[-1])}" if others else "") + " pixels"
            text += ", " if all(height == width for height, width in self.sizes) else " (height x width), "
            text += "grey" if self.is_grey else "in colour"
        return text


def told(size: tuple[int, int]) -> str:
    """A size as --image_size takes it."""
    return "x".join(map(str, size))


def unseen(spec: DataSpec) -> data.Source:
    """Opens a data set, decoding at most one picture; its classes are then known.

    Raises:
      ExperimentError: as `data.open_source`.
    """
    if not (spec.is_arrays or spec.image_size):
        spec = dataclasses.replace(spec, image_size=ANY_SIDE)
    return data.open_source(spec)


def surveyed(spec: DataSpec, source: data.Source) -> Survey:
    """Looks at every picture of a folder.

    Args:
      source: what `unseen` opened.

    Raises:
      ExperimentError: pictures that cannot be decoded.
    """
    source = _seen(source)
    if source.input_params is not None:
        return Survey(spec.name, source, (), is_grey=False)
    with data.reading(spec):
        pictures = _some(source)
    sizes = source.sizes or tuple(dict.fromkeys(picture.shape[:2] for picture in pictures))
    is_grey = all(np.all(picture == picture[..., :1]) for picture in pictures)
    return Survey(spec.name, source, sizes, is_grey)


def opened(spec: DataSpec) -> data.Source:
    """Opens a data set and looks at every stored picture, as training does first."""
    return _seen(data.open_source(spec))


def _seen(source: data.Source) -> data.Source:
    return source.scan(source) if source.scan else source


def _some(source: data.Source) -> list[np.ndarray]:
    """Training pictures [h, w, C] as stored, without those that cannot be decoded."""
    pictures = []
    for stored, _ in itertools.islice(source.train.read(0), NUM_LOOKED_AT):
        with contextlib.suppress(tf.errors.OpError):
            pictures.append(source.train.decode(stored).numpy())
    return pictures
