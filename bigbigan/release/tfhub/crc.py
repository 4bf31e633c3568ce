"""CRC-32C (Castagnoli), the checksum of TensorFlow's files, computed on many parts of the data at once."""

import numpy as np

POLYNOMIAL = 0x82F63B78  # reversed
LANES = 4096
BITS = np.arange(32, dtype=np.uint32)


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1)
    return table


TABLE = _table()


def _apply(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Multiply numbers of 32 bits by a matrix over GF(2), whose element i is what bit i becomes."""
    chosen = np.where((values[:, None] >> BITS) & 1, matrix, np.uint32(0))
    return np.bitwise_xor.reduce(chosen, axis=1)


def _zeros(count: int) -> np.ndarray:
    """Return the matrix by which `count` further zero bytes change a remainder."""
    power = np.uint32(1) << BITS  # the identity
    one = TABLE[power & 0xFF] ^ (power >> 8)
    while count:
        if count & 1:
            power = _apply(one, power)
        one = _apply(one, one)
        count >>= 1
    return power


def crc32c(data: bytes | np.ndarray) -> int:
    """Return the CRC-32C of bytes.

    Long data are cut into lanes that are computed side by side, and the remainders of neighbours are joined two by two
    (the remainder is linear).
    """
    data = np.frombuffer(data, np.uint8) if isinstance(data, (bytes, bytearray, memoryview)) else data
    width = len(data) // LANES if len(data) > 8 * LANES else 0
    crc = 0xFFFFFFFF
    if width:
        lanes = np.zeros(LANES, np.uint32)
        lanes[0] = crc
        for column in np.ascontiguousarray(data[: width * LANES].reshape(LANES, width).T):
            lanes = TABLE[(lanes ^ column) & 0xFF] ^ (lanes >> 8)
        longer = _zeros(width)
        while len(lanes) > 1:
            lanes = _apply(longer, lanes[0::2]) ^ lanes[1::2]
            longer = _apply(longer, longer)
        crc = int(lanes[0])
    table = TABLE.tolist()
    for byte in data[width * LANES :].tolist():
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """Return a CRC as TensorFlow stores it: rotated by 15 bits, and a constant added."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
