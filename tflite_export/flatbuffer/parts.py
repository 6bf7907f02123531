"""What the bytes of a file are spent on."""

from qkd_tf.contract.weight_storage import SCALE_BYTES
from tflite_export.flatbuffer.graph import IntegerGraph


def parts(graph: IntegerGraph, num_bytes: int) -> dict[str, int]:
    """Bytes by what they hold; they add up to `num_bytes`, the size of the graph's file.

    "other_bytes" are names, shapes, operators, other constants, and the tables and alignment of the flatbuffer.
    """
    kernels = [kernel for _, kernel in graph.kernels()]
    biases = {o.inputs[2] for o, _ in graph.kernels() if len(o.inputs) > 2}
    found = {
        "kernel_bytes": sum(kernel.num_bytes for kernel in kernels),
        "bias_bytes": sum(graph.tensors[name].num_bytes for name in biases),
        "scale_bytes": SCALE_BYTES * sum(tensor.scales.size for tensor in graph.tensors.values()),
    }
    return found | {"other_bytes": num_bytes - sum(found.values())}
