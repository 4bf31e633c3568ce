"""Say in one sentence what is wrong with a file of settings that OmegaConf does not take."""

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bigbigan.files import printable

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
REFUSALS = (OmegaConfBaseException, TypeError, ValueError, AttributeError)
SHOWN = 60  # characters of a value in a sentence


def mistake(default: Any, content: Any) -> str:
    """Return what is wrong with the first setting of a parsed file that cannot be; "" if each of them can.

    default: a dataclass of settings, or one of sections that hold them.
    """
    return next(_mistakes(default, content, "", _fits), "")


def misread(default: Any, content: Any) -> str:
    """Return what is wrong with the first value that OmegaConf would change, as 3 to true, 007 to "7"; "" for none."""
    return next(_mistakes(default, content, "", _keeps), "")


def _mistakes(settings: Any, content: Any, inside: str, fits: Callable[[Any, str, Any], bool]) -> Iterator[str]:
    """Yield a sentence for each mistake.

    inside: the sections around these settings, such as "model.".  fits: says of (settings, key, value) whether it can
    be.
    """
    if not isinstance(content, Mapping):
        where = f"{inside.rstrip('.')}: " if inside else ""
        yield f"{where}expected settings, as in `{next(iter(vars(settings)))}: …`, found {_shown(content)}"
        return
    hints = get_type_hints(type(settings))
    for key, value in content.items():
        if key not in hints:
            yield f"{inside}{printable(str(key))}: {_unknown(settings, str(key), inside)}"
        elif dataclasses.is_dataclass(part := getattr(settings, key)):
            yield from _mistakes(part, value, f"{inside}{key}.", fits)
        elif not fits(settings, key, value):
            yield f"{inside}{key}: expected {_kind(hints[key])}, found {_shown(value)}{_near(hints[key], value)}"


def _unknown(settings: Any, key: str, inside: str) -> str:
    """Return what was expected in place of a key that is no setting, and which it may have been."""
    own = [f.name for f in dataclasses.fields(settings)]
    parts = {name: getattr(settings, name) for name in own if dataclasses.is_dataclass(getattr(settings, name))}
    deeper = {f.name: section for section, part in parts.items() for f in dataclasses.fields(part)}
    expected = f"one of {', '.join(own)}" if parts else "a setting"
    section, _, name = key.rpartition(".")
    name = name if section in parts else key
    if near := _like(key, own):
        return f"expected {expected}; did you mean {inside}{near}?"
    if near := _like(name, list(deeper)):
        return f"expected {expected}; did you mean `{deeper[near]}: {{{near}: …}}`?"
    return f"expected {expected}"


def _like(name: str, names: list[str]) -> str:
    """Return the name that is spelled alike, else the first that has it as a word, as generator_lr has lr; or ""."""
    near = difflib.get_close_matches(name, names, 1)
    return [*near, *(other for other in names if name in other.split("_")), ""][0]


def _fits(settings: Any, key: str, value: Any) -> bool:
    try:
        OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(settings), OmegaConf.create({key: value})))
    except REFUSALS:
        return False
    return True


def _keeps(settings: Any, key: str, value: Any) -> bool:
    """Return whether a truth value or a text is one in the file, too; OmegaConf would make either of a number."""
    kind = type(getattr(settings, key))
    return not (kind in (bool, str) and isinstance(value, (int, float)) and not isinstance(value, kind))


def _kind(hint: Any) -> str:
    """Return in words what a setting of this type takes."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is tuple:
        first, *others = get_args(hint)
        count = "" if others == [...] else f"{NUMBERS.get(1 + len(others), 1 + len(others))} "
        return f"a list of {count}{KINDS.get(first, 'value').removeprefix('a ')}s"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_kind(kind) for kind in get_args(hint))
    return KINDS.get(hint, "another value")


def _near(hint: Any, value: Any) -> str:
    """Return the value that may have been meant: a choice spelled alike, a text in quotes, or 1_000_000 for 1e6."""
    if hint is int and isinstance(value, float) and value.is_integer():
        return f"; write {int(value):_}"
    unquoted = {str: (int, float), Literal: bool}.get(hint if hint is str else get_origin(hint), ())
    if isinstance(value, unquoted):  # YAML reads a text without quotes as these: 007, yes
        return "; put a text in quotes"
    choices = [str(choice) for choice in get_args(hint)] if get_origin(hint) is Literal else []
    near = difflib.get_close_matches(value, choices, 1) if isinstance(value, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: Any) -> str:
    """Return a value as the file has it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = printable(repr(value))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
