"""Read the variables of a TensorFlow checkpoint (`variables.index`, `variables.data-*`) without TensorFlow.

The index is a table of LevelDB's format: sorted blocks of key and value with shared prefixes. Its values are
BundleEntryProto: type, shape, and place in the data files. Every block and every tensor carries a checksum, and each is
checked.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bigbigan.errors import ConversionError
from bigbigan.files import printable
from bigbigan.release.tfhub.crc import crc32c, masked
from bigbigan.release.tfhub.wire import Value, message, numbers, shape, varint

MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5  # bytes
TYPES = {
    1: torch.float32, 2: torch.float64, 3: torch.int32, 4: torch.uint8, 9: torch.int64, 10: torch.bool,
    14: torch.bfloat16, 19: torch.float16,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """Where a variable lies: type (number of TensorFlow's DataType), shape, shard, first byte, bytes, checksum."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int | None


class Checkpoint:
    """The variables of a checkpoint by name; a tensor is read, and its checksum compared, when it is asked for.

    prefix: the path without ".index", such as DIR/variables/variables. Raises ConversionError.
    """

    def __init__(self, prefix: Path):
        self.prefix = prefix
        index = prefix.with_name(prefix.name + ".index")
        if not index.is_file():
            raise ConversionError(f"{printable(index)}: expected the index of a TensorFlow checkpoint, found no file")
        try:
            content = dict(read_table(index.read_bytes()))
            header = message(content.pop(b"", b""))
            self.shards = (numbers(header[1]) or [1])[-1]
            if (numbers(header[2]) or [0])[-1] != 0:
                raise ConversionError("expected little-endian numbers, found big-endian ones")
            self.entries = {k.decode(): self._entry(k.decode(), message(value)) for k, value in content.items()}
        except (ConversionError, IndexError, ValueError, TypeError, struct.error) as error:
            reason = error if isinstance(error, ConversionError) else f"expected a checkpoint's index, found {error}"
            raise ConversionError(f"{printable(index)}: {reason}") from None

    def _entry(self, name: str, entry: dict[int, list[Value]]) -> Entry:
        if entry[7]:
            raise ConversionError(f"variable {name}: expected it in one piece, found it partitioned")
        crc = struct.unpack("<I", entry[6][-1])[0] if entry[6] else None
        dtype, shard, offset, size = ((numbers(entry[i]) or [0])[-1] for i in (1, 3, 4, 5))
        return Entry(dtype, shape(entry[2][-1]) if entry[2] else (), shard, offset, size, crc)

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __getitem__(self, name: str) -> Tensor:
        """Return a variable in its own type. Raises ConversionError if it is not there or is damaged."""
        if name not in self.entries:
            raise ConversionError(f"{self.prefix.name}.index: expected the variable {name}, found none of this name")
        entry = self.entries[name]
        if entry.dtype not in TYPES:
            raise ConversionError(f"variable {name}: expected numbers, found TensorFlow's type {entry.dtype}")
        path = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self.shards:05d}")
        dtype = TYPES[entry.dtype]
        expected = dtype.itemsize * int(np.prod(entry.shape, dtype=np.int64))
        try:
            raw = np.fromfile(path, np.uint8, min(expected, path.stat().st_size), offset=entry.offset)
        except OSError as error:
            raise ConversionError(
                f"{printable(path)}: expected the data of the checkpoint, found: {error.strerror}"
            ) from None
        if len(raw) != expected or entry.size != expected:
            found = f"{len(raw)}" if entry.size == expected else f"{entry.size} in the index"
            raise ConversionError(
                f"variable {name}: expected {expected} bytes of shape {entry.shape} in {path.name}, found {found}; get "
                "the file again"
            )
        if entry.crc is not None and masked(crc32c(raw)) != entry.crc:
            raise ConversionError(
                f"variable {name}: its checksum is not the one in the index; {path.name} is damaged, get it again"
            )
        return torch.from_numpy(raw).view(dtype).reshape(entry.shape)


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a LevelDB table in order. Raises ConversionError."""
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise ConversionError("expected a LevelDB table, found another kind of file")
    at = len(data) - FOOTER
    for _ in range(2):  # the handle of the block that describes others is skipped
        _, at = varint(data, at)
    offset, at = varint(data, at)
    size, at = varint(data, at)
    for _, handle in _block(data, offset, size):
        first, after = varint(handle, 0)
        length, _ = varint(handle, after)
        yield from _block(data, first, length)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block, which ends with the places of keys that are written out in full."""
    end = offset + size
    if end + TRAILER > len(data):
        raise ConversionError(f"expected a block of {size} bytes at byte {offset}, found the end of the file")
    kind, crc = struct.unpack("<BI", data[end : end + TRAILER])
    if masked(crc32c(data[offset : end + 1])) != crc:
        raise ConversionError(f"expected the checksum of the block at byte {offset}, found another; get the file again")
    if kind != 0:
        raise ConversionError(f"expected blocks that are not compressed, found compression {kind}")
    block = data[offset:end]
    (restarts,) = struct.unpack("<I", block[-4:])
    key, at, last = b"", 0, len(block) - 4 * (restarts + 1)
    while at < last:
        shared, at = varint(block, at)
        fresh, at = varint(block, at)
        length, at = varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length
