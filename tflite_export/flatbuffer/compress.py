"""Weights at their true width for microcontrollers: TFLM's lookup tables, which only TFLM reads.

A kernel becomes indices, of as many bits as its integers need, into a table of these integers, one table for each
channel with a scale of its own. TFLM restores the integers at run time.
"""

import contextlib
import importlib
import io

import numpy as np

from qkd_tf.contract import lookup_tables, weight_storage
from qkd_tf.contract.lookup_tables import DECODE_CODE_BYTES
from tflite_export.flatbuffer.graph import IntegerGraph, Tensor

PACKAGE = "tflite_micro.tensorflow.lite.micro.compression"
CUSTOM_CODE = b"TFLM_DECODE"  # name of the decoding operator in such a file


def compress(graph: IntegerGraph, content: bytes) -> tuple[bytes, dict[str, int]]:
    """Compresses each kernel that this makes smaller.

    Args:
      graph: what `read_back` finds in the file; the kernels of `compressible` must be int8.
      content: the file.

    Returns:
      The compressed file and the index bits by kernel; the unchanged file if nothing becomes smaller.
    """
    names = compressible(graph)
    widths = {kernel.name: index_bits(kernel) for _, kernel in graph.kernels() if kernel.name in names}
    if not widths:
        return content, {}
    builder = importlib.import_module(f"{PACKAGE}.spec_builder").SpecBuilder()
    spec = importlib.import_module(f"{PACKAGE}.spec")
    for index, (name, tensor) in enumerate(graph.tensors.items()):
        if name in widths:
            mode = spec.PerTensor() if tensor.axis is None else spec.PerChannel(tensor.axis)
            builder.add_tensor(0, index).with_lut(widths[name], mode)
    compressor = importlib.import_module(f"{PACKAGE}.compress")
    with contextlib.redirect_stderr(io.StringIO()):  # it reports tables that could be narrower still
        return bytes(compressor.compress(content, builder.build())), widths


def flash_bytes(content: bytes) -> int:
    """Approximate bytes that a file adds to a firmware: its own, and the code of DECODE if it has tables."""
    return len(content) + (DECODE_CODE_BYTES if CUSTOM_CODE in content else 0)


def index_bits(kernel: Tensor) -> int:
    """Number of bits of an index into the kernel's largest table."""
    return lookup_tables.index_bits(_table_length(kernel))


def compressible(graph: IntegerGraph) -> set[str]:
    """Names of the kernels that lookup tables make smaller than they are stored."""
    return {kernel.name for _, kernel in graph.kernels() if gain(kernel) > 0}


def gain(kernel: Tensor) -> int:
    """Bytes that lookup tables save for a kernel as stored; 0 if they save none."""
    num_tables = 1 if kernel.axis is None else kernel.shape[kernel.axis]
    size = kernel.integers.size
    stored = weight_storage.num_bytes(size, kernel.dtype == "int4")
    return max(0, stored - lookup_tables.num_bytes(size, num_tables, _table_length(kernel)))


def _table_length(kernel: Tensor) -> int:
    channels = kernel.integers[np.newaxis] if kernel.axis is None else np.moveaxis(kernel.integers, kernel.axis, 0)
    return max(len(np.unique(channel)) for channel in channels)
