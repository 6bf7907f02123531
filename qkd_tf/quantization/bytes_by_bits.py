"""What fewer weight bits save on a target, before there is a file: sometimes not a byte."""

import dataclasses

import tf_keras

from qkd_tf.contract.grid import MAX_BITS
from qkd_tf.contract.targets import TARGETS
from qkd_tf.experiment import QuantizationSpec, TargetSpec
from qkd_tf.quantization.plan import QuantizationPlan
from qkd_tf.quantization.stored_bytes import StoredWidths, stored_files


def notes(model: tf_keras.Model, plan: QuantizationPlan, target: TargetSpec, spec: QuantizationSpec) -> list[str]:
    """A line if no kernel has the bits that were asked for, or if more bits take no more bytes; else none.

    Args:
      model: in standard form.
    """
    num_bits = spec.weight_bits
    if not spec.is_open and all(grid.num_bits > num_bits for grid in plan.weight_grids.values()):
        told = "--first_layer_bits and --last_layer_bits"
        told += " and --bits_rule" * bool(spec.bits_rule)
        return [
            f"note: no kernel has the {num_bits} bits that were asked for: {told} give all kernels of {model.name} more"
        ]
    storages = TARGETS[target.target].int4  # none on a target whose own compiler compresses what is stored
    if spec.is_open or not storages:
        return []
    uniform = [name for name, grid in plan.weight_grids.items() if grid.num_bits == num_bits]

    def file_bytes(files: list[StoredWidths], wider: int) -> int:
        widths = {name: grid.num_bits for name, grid in plan.weight_grids.items()} | dict.fromkeys(uniform, wider)
        return min(
            file.other_bytes + sum(file.kernel_bytes(name, width) for name, width in widths.items()) for file in files
        )

    files = stored_files(model, plan, target, spec)
    own = file_bytes(files, num_bits)
    widest = max(wider for wider in range(num_bits, MAX_BITS + 1) if file_bytes(files, wider) <= own)
    if widest == num_bits:
        return []
    others_of = {name: dataclasses.replace(target, weight_storage=name) for name in storages}
    packed = {name: file_bytes(stored_files(model, plan, of, spec), num_bits) for name, of in others_of.items()}
    others, least = "", own
    for name in storages:  # the one that costs least speed first
        if packed[name] < least:
            least = packed[name]
            slower = f", slower on a {target.target}" * (name in TARGETS[target.target].slower)
            widths = "" if spec.activation_bits == MAX_BITS else f"{spec.flag_of((num_bits, MAX_BITS))} "
            others += f", or {widths}--weight_storage={name}, with about {least:,} bytes{slower}"
    return [
        f"note: --target={target.target} stores weights of {num_bits} bits in as many bytes as weights of {widest} "
        f"bits (the file takes about {own:,} bytes), and activations of any width in a byte each; give "
        f"{spec.flag_of((widest, MAX_BITS))}, which loses less accuracy{others}"
    ]
