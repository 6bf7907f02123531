"""Kinds of devices, a row each: which runtime judges its files, and how they store weights."""

import dataclasses
from collections.abc import Mapping

from qkd_tf.contract.kinds import POINTWISE_CONVOLUTION

INPUT_TYPES = ("int8", "uint8")  # of a file's input: pixel - 128, or pixels as a camera gives them
WEIGHT_STORAGES = ("auto", "int8", "int4", "int4_all")


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
      title: for people.
      judges: runtimes that decide whether a file passes; the first installed one does.
      input_type: "uint8" takes pixels, "int8" pixel - 128.
      int4: --weight_storage, the one that costs the least speed first -> operators whose kernels it packs as INT4 ->
        whether it packs those with one scale per channel, too. POINTWISE_CONVOLUTION is written as FULLY_CONNECTED; if
        not listed, it is an ordinary CONV_2D.
      slower: those of `int4` that run slower than int8.
      auto: how weights that fit INT4 are stored by default.
      reason: why that is the default.
      clip: the operator that clips an activation's second end if nothing else does. XNNPACK runs QUANTIZE but not
        MAXIMUM; Vela estimates more cycles with QUANTIZE than with MAXIMUM (4 to 7 % for MobileNetV2 at 4 bits).
      rounds_twice: whether its kernels round twice when they rescale sums. TFLM's and CMSIS-NN's do, unless they are
        built with TFLITE_SINGLE_ROUNDING, and so does Ethos-U.
      compressed: whether a second file stores weights at their true width, in lookup tables.
    """

    title: str
    judges: tuple[str, ...]
    input_type: str
    int4: Mapping[str, Mapping[str, bool]]
    auto: str
    reason: str
    slower: tuple[str, ...] = ()
    clip: str = "MAXIMUM"
    rounds_twice: bool = False
    compressed: bool = False

    def storage(self, asked: str) -> str:
        """What one of WEIGHT_STORAGES means here: "int8", or a key of `int4`."""
        return self.auto if asked == "auto" else asked


TARGETS: Mapping[str, Target] = {
    "phone": Target(
        "a phone with LiteRT",
        judges=("litert",),
        input_type="uint8",
        int4={
            "int4": {"FULLY_CONNECTED": True, POINTWISE_CONVOLUTION: True},
            "int4_all": {"CONV_2D": True, "DEPTHWISE_CONV_2D": True, "FULLY_CONNECTED": True},
        },
        auto="int8",
        reason="no other storage runs faster on a phone",
        slower=("int4_all",),
        clip="QUANTIZE",
    ),
    "microcontroller": Target(
        "a microcontroller with TensorFlow Lite for Microcontrollers",
        judges=("tflm", "litert_reference"),
        input_type="int8",
        int4=dict.fromkeys(
            ("int4", "int4_all"), {"CONV_2D": True, "DEPTHWISE_CONV_2D": True, "FULLY_CONNECTED": False}
        ),
        auto="int4",
        reason="microcontrollers are short of flash; TFLM unpacks INT4 weights in its arena",
        rounds_twice=True,
        compressed=True,
    ),
    "ethos_u": Target(
        "an Ethos-U NPU",
        judges=("tflm", "litert_reference"),
        input_type="int8",
        int4={},
        auto="int8",
        rounds_twice=True,
        reason="Arm's compiler Vela does not accept INT4 and compresses weights itself",
    ),
}
