"""What an engineer gets with a file that passed: templates filled with facts about it."""

import dataclasses
import pathlib
from typing import Any

import jinja2
import numpy as np
from numpy.typing import ArrayLike

from qkd_tf import __version__
from qkd_tf.contract.pictures import Size, room
from tflite_export.bundles.about import rows
from tflite_export.bundles.vela import Vela
from tflite_export.flatbuffer.graph import IntegerGraph, Tensor
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.load import Handoff

BYTES_A_LINE = 20


@dataclasses.dataclass(frozen=True)
class Delivery:
    """A file that passed, and where it comes from.

    Attributes:
      name: name of the run.
      content: bytes of model.tflite.
      compressed: the same with lookup tables; None if there is none.
      handoff: that of the run, for label names and test images.
      verification: that of the file.
      image_size: size to which training resized images, in pixels; 0 if it used them as stored.
      squashes: whether images were squashed to that size, instead of covering it and being cropped.
      vela: how to compile a file for an Ethos-U NPU.
      is_signal: whether the input is not an image but features on the input's steps.
      limits: a line for each limit of the run, and whether the file meets it.
    """

    name: str
    content: bytes
    compressed: bytes | None
    handoff: Handoff
    verification: dict
    image_size: Size
    squashes: bool = False
    vela: Vela = Vela()
    is_signal: bool = False
    limits: tuple[str, ...] = ()

    @property
    def graph(self) -> IntegerGraph:
        return read_back(self.content)

    @property
    def facts(self) -> dict:
        """The variables for the templates of every bundle."""
        graph = self.graph
        entry = graph.tensors[graph.input]
        noun = "example" if self.is_signal else "image"
        return {
            "noun": noun,
            "title": f"model.tflite of {self.name}",
            "version": __version__,
            "sha256": self.verification["file"]["sha256"],
            "content": self.content,
            "input": entry,
            "output": graph.tensors[graph.output],
            "pixel_offset": pixel_offset(entry),
            "lowest": -pixel_offset(entry),
            "about": rows(self.verification, noun),
            "limits": self.limits,
            "cautions": self.verification.get("cautions", []),
            "labels": self.handoff.label_names,
            "image_size": self.image_size,
            "squashes": self.squashes,
            "room": room(self.image_size),
            "is_signal": self.is_signal,
            "place": "Features" if self.is_signal else "Pixels",  # C++ function that returns the input buffer
        }


def pixel_offset(entry: Tensor) -> int:
    """What to subtract from a pixel to get the file's integer."""
    return 128 if entry.dtype == "int8" else 0


def render(template: str, **values: Any) -> bytes:
    """A template of templates/, filled, as UTF-8."""
    return (_environment().get_template(template).render(**values).strip("\n") + "\n").encode()


def c_array(integers: bytes | ArrayLike) -> str:
    """Integers, or bytes, as lines of a C initialiser."""
    values = np.frombuffer(integers, np.uint8) if isinstance(integers, bytes) else np.asarray(integers).ravel()
    texts = [str(value) for value in values.tolist()]
    return "\n".join(", ".join(texts[i : i + BYTES_A_LINE]) + "," for i in range(0, len(texts), BYTES_A_LINE))


def c_string(text: str) -> str:
    """A C string literal of the text's UTF-8."""
    safe = set(range(32, 127)) - set(b'"\\?')  # ? for the sake of trigraphs
    return '"' + "".join(chr(byte) if byte in safe else f"\\{byte:03o}" for byte in text.encode()) + '"'


def number(scales: np.ndarray) -> str:
    """A tensor's only scale, in digits that give the same float32 again."""
    return repr(float(scales[0]))


def c_float(scales: np.ndarray) -> str:
    return f"{number(scales)}f"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(  # nothing is escaped: no HTML, but C++, Kotlin, Swift and Markdown
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"c_array": c_array, "c_string": c_string, "c_float": c_float, "number": number}
    return environment
