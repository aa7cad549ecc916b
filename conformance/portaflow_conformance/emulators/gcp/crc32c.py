"""CRC32C of two pieces one after the other, by those of each: neither has to be read again.

A checksum is a polynomial over GF(2) with the highest power in bit 0, modulo Castagnoli's. What
follows a piece multiplies its checksum by x, once for each bit; the inversions that CRC32C begins
and ends with cancel out.
"""

from __future__ import annotations

from functools import lru_cache

_CASTAGNOLI = 0x82F63B78
_ONE = 1 << 31  # the polynomial 1


def joined(first: int, second: int, length: int) -> int:
    """The checksum of both; `length` is that of the second, in bytes."""
    return _product(first, _power(8 * length)) ^ second


def _product(a: int, b: int) -> int:
    product = 0
    while b:
        if b & _ONE:
            product ^= a
        b = b << 1 & 0xFFFFFFFF
        a = a >> 1 ^ (_CASTAGNOLI if a & 1 else 0)
    return product


@lru_cache(maxsize=64)  # most parts are of one size
def _power(exponent: int) -> int:
    """That power of x."""
    power, base = _ONE, _ONE >> 1
    while exponent:
        if exponent & 1:
            power = _product(power, base)
        base, exponent = _product(base, base), exponent >> 1
    return power
