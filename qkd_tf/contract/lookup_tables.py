"""What a kernel takes under lookup tables: indices of its true width into a table, for each channel that has a scale.

TFLM's operator DECODE puts the integers back when it runs; no other runtime reads them.
"""

MAX_INDEX_BITS = 7
DECODE_BYTES = 256  # what a DECODE operator with its tensors adds to a file, about
DECODE_CODE_BYTES = 22_000  # of flash that the operator's code takes on a Cortex-M, gcc -O2; at -Os it is some 9,000


def index_bits(table_length: int) -> int:
    """Bits of an index into a table."""
    return max(1, (table_length - 1).bit_length())


def num_bytes(num_weights: int, num_tables: int, table_length: int) -> int:
    """Of a kernel in the file, about; its int8 where they are fewer, or an index would have 8 bits.

    Args:
      table_length: of the largest table.
    """
    bits = index_bits(table_length)
    if bits > MAX_INDEX_BITS:
        return num_weights
    return min(num_weights, -(-num_weights * bits // 8) + num_tables * table_length + DECODE_BYTES)
