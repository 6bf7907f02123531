"""How much memory a flatbuffer unpacks to, found before any of it is unpacked.

In a flatbuffer everything is found by offsets. So an untrusted file may have a thousand tables that all point to the
same thousand tables: kilobytes that unpack to more than any memory. In an honest file each table, vector and string has
bytes of its own.
"""

import functools

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

MAX_TABLES = 100_000  # some 3,000 are in the file of a ResNet-101
MAX_SHARE = 2  # of the file's size: other writers let equal strings share their bytes
# Field that holds one of several kinds of table -> the names of these by number.
UNIONS = {
    "BuiltinOptions": schema.BuiltinOptions,
    "BuiltinOptions2": schema.BuiltinOptions2,
    "Details": schema.QuantizationDetails,
    "ArraySegments": schema.SparseIndexVector,
    "ArrayIndices": schema.SparseIndexVector,
}


def check_footprint(content: bytes) -> None:
    """Raises ValueError if a .tflite has more than MAX_TABLES tables, or tables that overlap.

    Offsets that lead out of the file raise struct.error, IndexError, TypeError or ValueError, as flatbuffers does.
    """
    room, num_tables = MAX_SHARE * len(content), 0
    waiting: list[object] = [schema.Model.GetRootAs(content)]
    while waiting:
        table = waiting.pop()
        num_tables += 1
        for field, is_vector, is_numeric in _fields(type(table).__name__):
            if not is_vector:
                value = getattr(table, field)()
                if isinstance(value, flatbuffers.table.Table):
                    value = _member(UNIONS[field], getattr(table, f"{field}Type")(), value)
                if isinstance(value, bytes):
                    room -= len(value)
                elif hasattr(value, "_tab"):
                    waiting.append(value)
                continue
            length = getattr(table, f"{field}Length")()
            if is_numeric:
                room -= getattr(getattr(table, f"{field}AsNumpy")(), "nbytes", 0)  # 0 where there is none
                continue
            room -= 4 * length
            if num_tables + len(waiting) + length > MAX_TABLES or room < 0:
                raise ValueError(f"{field} alone are {length:,}; {MAX_TABLES:,} tables are the most that is read")
            waiting += [getattr(table, field)(i) for i in range(length)]
        if room < 0:
            raise ValueError(
                f"its tables overlap: they unpack to more than {MAX_SHARE} times its {len(content):,} bytes"
            )


@functools.cache
def _fields(reader: str) -> list[tuple[str, bool, bool]]:
    """(field, whether it is a vector, whether it is a vector of numbers) of a generated reader."""
    kind = getattr(schema, reader)
    names = {name for name in vars(kind) if name[0].isupper()} - {"Init"}
    names -= {name for name in names if name.startswith("GetRootAs") or name.endswith("BufferHasIdentifier")}
    names -= {f"{name}{suffix}" for name in names for suffix in ("Length", "AsNumpy", "IsNone")}
    return [(name, hasattr(kind, f"{name}Length"), hasattr(kind, f"{name}AsNumpy")) for name in sorted(names)]


def _member(union: type, number: int, table: flatbuffers.table.Table) -> object | None:
    """The reader of a union's member; None if there is no such member, which is then never unpacked."""
    name = next((name for name, value in vars(union).items() if value == number and name != "NONE"), None)
    if name is None:
        return None
    reader = getattr(schema, name)()
    reader.Init(table.Bytes, table.Pos)
    return reader
