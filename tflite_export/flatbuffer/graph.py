"""An integer graph as values: what a .tflite holds, without the flatbuffer around it."""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

KERNEL_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # operators whose second input is a kernel


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of the integer graph.

    Attributes:
      name: unique in the graph.
      shape: batch first, 1.
      dtype: "int4", "int8", "uint8" or "int32"; int4 data is kept as int8 here, and packed in the file.
      scales: float32, one value, or one per channel of `axis`; empty for shapes, paddings and axes.
      zero_point: the integer that means 0.0.
      axis: the channel axis of `scales` if there are several, else None.
      data: the integers of a constant, None for an activation.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: np.ndarray
    zero_point: int = 0
    axis: int | None = None
    data: np.ndarray | None = None

    @property
    def integers(self) -> np.ndarray:
        """The data of a constant; ValueError for an activation."""
        if self.data is None:
            raise ValueError(f"tensor {self.name} is not a constant")
        return self.data

    @property
    def num_bytes(self) -> int:
        """Bytes of a constant's integers in the file."""
        return -(-self.integers.size // 2) if self.dtype == "int4" else self.integers.nbytes


@dataclasses.dataclass(frozen=True)
class Operator:
    """One TFLite operator: builtin name, tensors by name, and the options that decide its meaning.

    Options that we write are int, float, bool or str; those of an untrusted file are whatever it has.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class IntegerGraph:
    """Operators in the order of execution, the tensors that they name, and notes for the user."""

    input: str = ""
    output: str = ""
    signature: dict[str, str] = dataclasses.field(default_factory=dict)  # "key/name" for an app -> tensor
    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    operators: list[Operator] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    storage: dict[str, str] = dataclasses.field(default_factory=dict)  # kernel -> why it is stored as it is

    def add_tensor(self, tensor: Tensor) -> str:
        if tensor.name in self.tensors:
            raise ValueError(f"two tensors are named {tensor.name}")
        self.tensors[tensor.name] = tensor
        return tensor.name

    def kernels(self) -> list[tuple[Operator, Tensor]]:
        """Each operator that has a kernel, with that kernel."""
        return [(o, self.tensors[o.inputs[1]]) for o in self.operators if o.kind in KERNEL_KINDS]

    @property
    def multiply_adds(self) -> int:
        """Products that one inference adds up in operators with a kernel, those with padding among them."""
        outputs = [(self.tensors[operator.output].shape, kernel) for operator, kernel in self.kernels()]
        return sum(math.prod(shape) * (kernel.integers.size // shape[-1]) for shape, kernel in outputs)


def constant(
    name: str, data: np.ndarray, scales: ArrayLike = (), zero_point: int = 0, axis: int | None = None
) -> Tensor:
    """A tensor with data."""
    return Tensor(name, data.shape, data.dtype.name, np.asarray(scales, np.float32), zero_point, axis, data)
