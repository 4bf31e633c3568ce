"""Write the index of a TensorFlow checkpoint, to change what a module's says."""

import struct
from pathlib import Path

from bigbigan.release.tfhub.checkpoint import MAGIC, read_table
from bigbigan.release.tfhub.crc import crc32c, masked


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A block whose keys are all written in full but the first, with its trailer."""
    body = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in entries)
    body += struct.pack("<II", 0, 1) + b"\x00"
    return body + struct.pack("<I", masked(crc32c(body)))


def write_table(path: Path, content: dict[bytes, bytes]) -> None:
    """Write a table of one block of data."""
    data = block(sorted(content.items()))
    meta, end = block([]), len(data) - 5
    index = block([(max(content), varint(0) + varint(end))])
    places = varint(len(data)) + varint(len(meta) - 5) + varint(len(data) + len(meta)) + varint(len(index) - 5)
    path.write_bytes(data + meta + index + places.ljust(40, b"\x00") + struct.pack("<Q", MAGIC))


def change_index(module: Path, change) -> None:
    """Rewrite a module's index with what `change` makes of its dictionary, name → entry."""
    path = module / "variables" / "variables.index"
    content = dict(read_table(path.read_bytes()))
    change(content)
    write_table(path, content)
