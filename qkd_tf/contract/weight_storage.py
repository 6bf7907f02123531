"""The form in which a kernel is stored: one rule for writing the file and for counting its bytes beforehand."""

import dataclasses
from collections.abc import Callable, Mapping

from qkd_tf.contract.grid import INT4_MAX
from qkd_tf.contract.kinds import POINTWISE_CONVOLUTION
from qkd_tf.contract.targets import Target

SCALE_BYTES = 4 + 8  # of a tensor's scale in a file: a float32, and its zero point of 64 bits


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What decides how a kernel is stored.

    Attributes:
      operator: the one that reads it: "CONV_2D", "DEPTHWISE_CONV_2D" or "FULLY_CONNECTED".
      is_pointwise: whether that is a 1x1 convolution, the same as a Dense layer at each pixel.
      is_dilated: whether it skips pixels.
      is_grouped: whether it is a convolution in which each output reads only some of the inputs.
      num_inputs: channels that a DEPTHWISE_CONV_2D reads; otherwise the weights of one output at one pixel.
      num_channels: channels of the operator's output.
      per_channel: whether each channel has a scale of its own.
      largest: the largest absolute value of its integers, as stored.
    """

    operator: str
    is_pointwise: bool
    is_dilated: bool
    is_grouped: bool
    num_inputs: int
    num_channels: int
    per_channel: bool
    largest: int


@dataclasses.dataclass(frozen=True)
class Form:
    """How a kernel is stored.

    Attributes:
      operator: the one that then reads it.
      is_int4: two integers per byte instead of one.
      why: the reason, in words.
    """

    operator: str
    is_int4: bool
    why: str


# What CMSIS-NN of August 2026 computes wrongly in INT4, found on emulated boards (`make micro TFLM=DIR`):
# such depthwise convolutions by up to 155 steps; with groups it reads the kernel as if each output read all inputs.
# No target stores these kernels as INT4: a run is exported for each of them, with one prediction for each runtime.
WRONG_IN_CMSIS_NN: Mapping[str, Callable[[Kernel], bool]] = {
    "dilation or a multiplier, and an odd number of input channels": lambda kernel: (
        kernel.operator == "DEPTHWISE_CONV_2D"
        and kernel.num_inputs % 2 == 1
        and (kernel.is_dilated or kernel.num_channels != kernel.num_inputs)
    ),
    "groups": lambda kernel: kernel.is_grouped,
}


def never_int4(kernel: Kernel) -> str | None:
    """Why a kernel is stored as int8 whatever the target and the storage; None where it may be INT4."""
    if kernel.largest > INT4_MAX:
        return f"integers beyond {INT4_MAX}, as in layers of more than 4 bits"
    wrong = [what for what, has in WRONG_IN_CMSIS_NN.items() if has(kernel)]
    return f"{wrong[0]}, which CMSIS-NN computes wrongly in INT4" if wrong else None


def form(kernel: Kernel, storage: str, target: Target) -> Form:
    """INT4 if the storage packs such kernels and nothing prevents it for this one.

    Args:
      storage: a key of `Target.int4`.
    """
    packs = target.int4[storage]
    kind = POINTWISE_CONVOLUTION if kernel.is_pointwise else kernel.operator
    written = "FULLY_CONNECTED" if kind == POINTWISE_CONVOLUTION and kind in packs else kernel.operator
    obstacle = _obstacle(kernel, written, packs.get(kind, packs.get(kernel.operator)), target)
    if obstacle is not None:
        return Form(kernel.operator, False, obstacle)
    return Form(written, True, "as INT4" if written == kernel.operator else f"as INT4 {written}: {kind}")


def num_bytes(num_weights: int, is_int4: bool) -> int:
    """Bytes of a kernel in the file; if the number of integers is odd, the last has a byte of its own."""
    return -(-num_weights // 2) if is_int4 else num_weights


def _obstacle(kernel: Kernel, written: str, per_channel: bool | None, target: Target) -> str | None:
    """What prevents a kernel from being stored as INT4, in words; None if nothing does.

    Args:
      written: the operator that would read it in the file.
      per_channel: whether the storage packs kernels with a scale per channel, too; None if it packs none.
    """
    if why := never_int4(kernel):
        return why
    if written == "FULLY_CONNECTED" and kernel.num_inputs % 2:
        return "an odd number of inputs"  # LiteRT leaves these to kernels that round in another way
    if per_channel is None:
        others = [storage for storage, packs in target.int4.items() if written in packs]
        more = f"; --weight_storage={others[0]} packs it anyway" if others else ""
        return f"INT4 {written} is slower there{more}" if others else f"no INT4 {written} there"
    if kernel.per_channel and not per_channel:
        return f"no INT4 {written} with a scale for each channel there"
    return None
