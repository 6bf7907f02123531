"""Checks a file of any origin against the handoff from which it should come."""

import pathlib
from collections.abc import Sequence

from qkd_tf.contract.gate import Gate
from qkd_tf.contract.targets import INPUT_TYPES, TARGETS
from tflite_export.export_error import ExportError
from tflite_export.flatbuffer.compress import CUSTOM_CODE
from tflite_export.flatbuffer.convert import convert
from tflite_export.flatbuffer.read_back import read_back
from tflite_export.load import load_handoff
from tflite_export.proof.verification import verify
from tflite_export.rebuilding.rebuild import CLIPS, rebuild

MAX_SHARE, MAX_DESCRIPTION = 4, 1 << 20  # a larger file is not even read: so many times what is expected, and bytes


def check(tflite: pathlib.Path, folder: pathlib.Path, target: str, runtimes: Sequence[str]) -> dict:
    """The verification of an existing file against a handoff.

    Raises:
      ExportError: there is no handoff, or the file cannot come from it.
    """
    handoff = load_handoff(folder)
    expected = rebuild(handoff, INPUT_TYPES[0])
    num_bytes, most = tflite.stat().st_size, MAX_SHARE * len(convert(expected, "")) + MAX_DESCRIPTION
    if num_bytes > most:
        raise ExportError(
            f"--tflite={tflite} has {num_bytes:,} bytes; a file exported from {folder} has fewer than {most:,}"
        )
    content = tflite.read_bytes()
    if CUSTOM_CODE in content:
        raise ExportError(
            f"--tflite={tflite} has lookup tables; its export compared it with model.tflite, give that file"
        )
    if (form := form_of(content)) != (INPUT_TYPES[0], CLIPS[0]):
        expected = rebuild(handoff, *form)
    return verify(content, expected, handoff, Gate(), TARGETS[target], runtimes)


def form_of(content: bytes) -> tuple[str, str]:
    """(Input type, second clip) of a file, if we write such; otherwise our defaults, and the comparison fails."""
    try:
        found = read_back(content)
    except ValueError:
        return INPUT_TYPES[0], CLIPS[0]
    dtype = found.tensors[found.input].dtype
    clip = next((clip for clip in CLIPS[1:] if any(operator.kind == clip for operator in found.operators)), CLIPS[0])
    return dtype if dtype in INPUT_TYPES else INPUT_TYPES[0], clip
