"""Bounds of single settings, declared beside each field of `schema` and checked here.

    batch_size: Annotated[int, Bounds(least=2)] = 2048

Own code rather than annotated-types or pydantic: neither is a dependency yet, both leave the sentence to us, and tyro
and OmegaConf read the plain type and pass over the annotation.
"""

import math
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, get_type_hints

from bigbigan.errors import ConfigError, InputError
from bigbigan.files import printable


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting accepts; of a tuple, what each of its numbers must be.

    least, most: smallest and largest number.  above, below: the same, but excluded.  even: only even numbers.
    lengths: how many numbers a tuple may hold, () for any.
    expected: what the error message says was expected; derived from the numbers if empty.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    even: bool = False
    lengths: tuple[int, ...] = ()
    expected: str = ""

    def accepts(self, value: float | tuple[float, ...]) -> bool:
        """Return whether a number, or every number of a tuple, is within the bounds."""
        if isinstance(value, tuple):
            return (not self.lengths or len(value) in self.lengths) and all(map(self.accepts, value))
        return self.least <= value <= self.most and self.above < value < self.below and not (self.even and value % 2)

    def words(self) -> str:
        """Return what was expected, for an error message."""
        if self.expected:
            return self.expected
        kind = "an even number " if self.even else ""
        if self.most < math.inf and self.above > -math.inf:
            return f"a number above {self.above:,} and at most {self.most:,}"
        if self.most < math.inf:
            return f"{kind}from {self.least:,} to {self.most:,}"
        if self.least > -math.inf:
            return f"{kind}at least {self.least:,}"
        return f"a number above {self.above:,}"


# Kinds of numbers that several settings share.
AtLeastOne = Annotated[int, Bounds(least=1)]
AtLeastTwo = Annotated[int, Bounds(least=2)]
NotNegative = Annotated[int, Bounds(least=0)]
Positive = Annotated[float, Bounds(above=0)]
Strength = Annotated[float, Bounds(least=0, expected="a number above 0, or 0 for none")]
BelowOne = Annotated[float, Bounds(least=0, below=1, expected="a number from 0 to below 1")]
Share = Annotated[float, Bounds(least=0, most=1)]
Finite = Annotated[float, Bounds(expected="a finite number")]


def check_bounds(section: str, values: object) -> None:
    """Raise ConfigError for the first setting of a section that is out of bounds, infinite, NaN or not printable.

    section: the name for the flags, such as "model".  values: its dataclass.
    """
    for f in fields(values):
        value = getattr(values, f.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, str) and printable(part) != part:
                raise ConfigError(
                    f"--{section}.{f.name} {printable(part)!r}: expected text that can be printed; choose another name"
                )
    check_numbers(values, f"{section}.")


def check_numbers(values: object, prefix: str = "") -> None:
    """Raise ConfigError for the first number of a dataclass, or of one within it, that is out of bounds or not finite.

    prefix: of the flags, such as "model.".
    """
    for f in fields(values):
        value, flag = getattr(values, f.name), f"--{prefix}{f.name}"
        if is_dataclass(value):
            check_numbers(value, f"{prefix}{f.name}.")
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, float) and not math.isfinite(part):
                raise ConfigError(f"{flag} {part}: expected a finite number")
        for bounds in _bounds(type(values)).get(f.name, ()):
            if not bounds.accepts(value):
                parts = value if isinstance(value, tuple) else (value,)
                raise ConfigError(f"{flag} {' '.join(map(str, parts))}: expected {bounds.words()}")


def check_argument(name: str, value: object, kind: object) -> None:
    """Raise InputError if an argument of a function is not of a kind of numbers, such as `AtLeastOne`."""
    number, bounds = Integral if kind.__origin__ is int else Real, kind.__metadata__[0]
    if isinstance(value, bool) or not isinstance(value, number) or not bounds.accepts(value):
        words = bounds.words().removeprefix("a number ")
        if not bounds.expected:
            words = f"a {'whole ' * (number is Integral)}number {'of ' * words.startswith('at least')}{words}"
        raise InputError(f"{name}: expected {words}, found {printable(repr(value))}")


@cache
def _bounds(section: type) -> dict[str, list[Bounds]]:
    """Return {field: its bounds} of a dataclass."""
    hints = get_type_hints(section, include_extras=True)
    found = {
        name: [b for b in getattr(hint, "__metadata__", ()) if isinstance(b, Bounds)] for name, hint in hints.items()
    }
    return {name: bounds for name, bounds in found.items() if bounds}
