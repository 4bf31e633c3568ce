"""Read messages of Protocol Buffers from their bytes, without generated classes: fields by number, nothing else."""

import struct
from collections import defaultdict
from collections.abc import Iterator

from bigbigan.errors import ConversionError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | bytes


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at this place, and the place after it. Raises ConversionError."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ConversionError(f"expected a number at byte {at}, found the end of its message; the file is damaged")


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield (field number, value) of a message: int for varints, bytes for everything else, fixed numbers too."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ConversionError(f"expected a Protocol Buffers message, found the wire type {kind} at byte {at}")
        if at + size > len(data):
            raise ConversionError(f"expected {size} bytes at byte {at}, found {len(data) - at}; the file is damaged")
        yield number, data[at : at + size]
        at += size


def message(data: bytes) -> dict[int, list[Value]]:
    """Return all fields of a message by their number, each a list, since any field may be repeated."""
    found: dict[int, list[Value]] = defaultdict(list)
    for number, value in fields(data):
        found[number].append(value)
    return found


def signed(value: int) -> int:
    """Return a varint read as a signed number of 64 bits."""
    return value - 2**64 if value >= 2**63 else value


def numbers(values: list[Value]) -> list[int]:
    """Return the signed integers of a repeated field, packed into bytes or not."""
    found = []
    for value in values:
        if isinstance(value, int):
            found.append(signed(value))
            continue
        at = 0
        while at < len(value):
            number, at = varint(value, at)
            found.append(signed(number))
    return found


def floats(values: list[Value], kind: str = "f") -> list[float]:
    """Return the floats ("f") or doubles ("d") of a repeated field, packed or not."""
    return [number for value in values for (number,) in struct.iter_unpack(f"<{kind}", value)]


def text(values: list[Value]) -> str:
    """Return the last string of a field; "" if it is absent."""
    return values[-1].decode() if values else ""


def mapping(values: list[Value]) -> dict[str, bytes]:
    """Return a field of the type map<string, message>."""
    entries = [message(value) for value in values]
    return {text(entry[1]): entry[2][-1] if entry[2] else b"" for entry in entries}


def shape(data: bytes) -> tuple[int, ...]:
    """Return a TensorShapeProto; an unknown size is −1."""
    return tuple((numbers(message(dim)[1]) or [0])[-1] for dim in message(data)[2])
