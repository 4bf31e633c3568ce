"""Parse a command line by tyro, whose boxes of several lines about a mistake become one sentence."""

import difflib
import io
import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import is_dataclass
from typing import Any, TypeVar

from bigbigan.config.bounds import check_numbers
from bigbigan.errors import ConfigError

T = TypeVar("T")
NARROWEST = 20  # columns of a terminal in which tyro's boxes find room; in 4 it would wrap their lines for ever
SHORT_HELP = ("bigbigan-train", "bigbigan-probe", "bigbigan-extract")  # whose --help shows the usual settings alone
KINDS = {  # beginning of what a setting takes, as tyro writes it → in words
    "INT INT": "whole numbers", "[INT [INT": "whole numbers", "INT": "a whole number",
    "FLOAT FLOAT": "numbers", "[FLOAT [FLOAT": "numbers", "FLOAT": "a number",
}  # fmt: skip


def parse_options(options: type[T], prog: str, argv: Sequence[str] | None, **settings: Any) -> T:
    """Return the options of a command line, whose numbers are within their bounds; `--help` exits. Raises ConfigError.

    prog: the command, as one types it.  argv: None for this process's.  settings: further ones of `tyro.cli`.
    """
    import tyro

    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    argv, said = list(sys.argv[1:] if argv is None else argv), io.StringIO()
    try:
        with redirect_stderr(said):
            found = tyro.cli(
                options, prog=prog, args=argv, config=(tyro.conf.FlagConversionOff,), use_underscores=True, **settings
            )
    except SystemExit as end:
        if not end.code:
            raise
        everything = "--help-all" if prog in SHORT_HELP else "--help"
        raise ConfigError(f"{sentence(said.getvalue(), prog, argv)}; {prog} {everything} lists all settings") from None
    if is_dataclass(found):
        check_numbers(found)
    return found


def sentence(box: str, prog: str, argv: Sequence[str]) -> str:
    """Return what a box of tyro's says; its own first words where it is none of those known here."""
    title, sections = _read(box)
    first, then = " ".join(sections[0]), [*sections[1:2], []][0]
    if match := re.match(r"Error parsing (\S+): ", first):
        usage = " ".join(then[1:]).removeprefix(match[1]).strip()  # what it takes, then its description
        kinds = [words for kind, words in KINDS.items() if usage.startswith(kind)]
        return f"{match[1]} {_values(match[1], argv)}: expected {[*kinds, *usage.split(), 'another value'][0]}"
    if match := re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)\s*\.", first):
        choices = re.findall(r"'([^']*)'", match[3])
        near = "".join(f"; did you mean {choice}?" for choice in difflib.get_close_matches(match[1], choices, 1))
        return f"{match[2]} {match[1]}: expected one of {', '.join(choices)}{near}"
    if match := re.match(r"Missing value for argument '(.*)'\. Expected (\d+) values\.", first):
        found = _values(match[1], argv) or "none"
        return f"{match[1]}: expected {match[2]} value{'s' * (match[2] != '1')}, found {found}"
    if match := re.match(r"Unrecognized options: (-?[^,]+)", first):
        near = [word for word in " ".join(then).split() if word.startswith("--") and word != "--help"]
        setting = f"a setting; did you mean {near[0]}?" if near else "a setting"
        further = f"no further argument{torn_path(match[1], argv)}"
        return f"{match[1]}: expected {setting if match[1].startswith('--') else further}"
    if first.startswith("Unrecognized options:"):
        return "'': expected no empty argument, as a variable of the shell gives that is not set"
    if title == "Required options" and len(sections[0]) > 2:
        wanted = " ".join(sections[0][2:]).removesuffix("(required)").strip().rstrip(".")
        return f"{prog}: expected one argument more: {wanted[0].lower()}{wanted[1:]}"
    return first or "expected another command line"


def _read(box: str) -> tuple[str, list[list[str]]]:
    """Return the title of a box and its lines, by the sections that rules part.

    tyro draws a frame where the standard output has its characters; else the title, a rule and indented lines.
    """
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    lines = [line for line in lines if line and not line.startswith("╰")]
    title, lines = "".join(lines[:1]).strip("╭╮─ "), lines[1:]
    sections: list[list[str]] = [[]]
    for line in lines[1:] if lines and not lines[0].strip("-") else lines:
        if line.strip("─-"):
            sections[-1].append(line)
        else:
            sections.append([])
    return title, sections


def torn_path(word: str, argv: Sequence[str]) -> str:
    """Return advice where an argument too many is a piece of a path with blanks, or one of the files of a pattern.

    word: the argument of the command line argv; "" is returned for others.
    """
    at = argv.index(word) if word in argv else 0
    for first in range(at):
        for end in range(len(argv), at, -1):
            path = " ".join(argv[first:end]).partition("=")[2] or " ".join(argv[first:end])
            if os.path.exists(path):
                return f"; put a path with blanks in quotes, '{path}'"
    if os.path.exists(word):
        return "; a pattern such as *.jpg, which the shell replaces by all its files, is no value: name their folder"
    return ""


def _values(flag: str, argv: Sequence[str]) -> str:
    """Return what a command line gives for a flag, however it is hyphenated; "" for nothing."""
    name = flag.replace("_", "-")
    for i, argument in enumerate(argv):
        own, _, value = argument.partition("=")
        if own.replace("_", "-") == name:
            after = next((k for k, other in enumerate(argv[i + 1 :]) if other.startswith("--")), len(argv))
            return value or " ".join(argv[i + 1 : i + 1 + after])
    return ""
