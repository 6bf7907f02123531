"""The bytes of a kernel in lookup tables: indices of its true width into one table per channel that has a scale.

TFLM's operator DECODE restores the integers at run time; no other runtime reads such tables.
"""

MAX_INDEX_BITS = 7
DECODE_BYTES = 256  # what a DECODE operator with its tensors adds to a file, about
DECODE_CODE_BYTES = 22_000  # of flash that the operator's code takes on a Cortex-M, gcc -O2; at -Os it is some 9,000


def index_bits(table_length: int) -> int:
    """Number of bits of an index into a table."""
    return max(1, (table_length - 1).bit_length())


def num_bytes(num_weights: int, num_tables: int, table_length: int) -> int:
    """Approximate bytes of a kernel in the file; those of int8 if that is less, or if an index would need 8 bits.

    Args:
      table_length: of the largest table.
    """
    bits = index_bits(table_length)
    if bits > MAX_INDEX_BITS:
        return num_weights
    return min(num_weights, -(-num_weights * bits // 8) + num_tables * table_length + DECODE_BYTES)
