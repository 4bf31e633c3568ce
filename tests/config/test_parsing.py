"""A mistake on a command line is one sentence: expected, found, what to do."""

import io
import re
import sys
from dataclasses import dataclass, field
from typing import Literal

import pytest
import tyro

from bigbigan.config.bounds import AtLeastOne
from bigbigan.config.parsing import parse_options
from bigbigan.errors import ConfigError


@dataclass
class Data:
    value_range: tuple[float, ...] = ()
    flip: bool = True
    path: str = ""


@dataclass
class Options:
    """Do something."""

    model: tyro.conf.Positional[str]
    """A run folder, or the name of a model whose description is long enough to fill more than one line of a box."""
    rows: AtLeastOne = 8
    """Images in the picture."""
    rate: float = 1.0
    betas: tuple[float, float] = (0.5, 0.9)
    kind: Literal["hinge", "logistic"] = "hinge"
    parts: tuple[Literal["linear", "knn"], ...] = ()
    data: Data = field(default_factory=Data)


MISTAKES = {
    "m --rows abc": "--rows abc: expected a whole number",
    "m --rows=2.5": "--rows 2.5: expected a whole number",
    "m --rate x --rows 3": "--rate x: expected a number",
    "m --kind hing": "--kind hing: expected one of hinge, logistic; did you mean hinge?",
    "m --parts linear xyz": "--parts xyz: expected one of linear, knn",
    "m --data.flip maybe": "--data.flip maybe: expected one of True, False",
    "m --data.value_range a b": "--data.value_range a b: expected numbers",
    "m --betas x y": "--betas x y: expected numbers",
    "m --betas 0.5": "--betas: expected 2 values, found 0.5",
    "m --rows": "--rows: expected 1 value, found none",
    "": "tool: expected one argument more: a run folder, or the name of a model whose description is long enough to "
    "fill more than one line of a box",
    "m n": "n: expected no further argument",
    "m --rws 3": "--rws: expected a setting; did you mean --rows?",
    "m --xyzzy": "--xyzzy: expected a setting",
}


# a command line in a folder with "my photos/a.png" and "my photos/b.png" → the sentence about the argument too many
PIECES = {
    ("m", "n", "my", "photos"): "n: expected no further argument",
    ("m", ""): "'': expected no empty argument, as a variable of the shell gives that is not set",
    ("m", "", "n"): "'': expected no empty argument, as a variable of the shell gives that is not set",
    ("my", "photos"): "photos: expected no further argument; put a path with blanks in quotes, 'my photos'",
    ("m", "--data.path", "my", "photos/a.png"): "photos/a.png: expected no further argument; put a path with blanks in "
    "quotes, 'my photos/a.png'",
    ("m", "--data.path=my", "photos"): "photos: expected no further argument; put a path with blanks in quotes, "
    "'my photos'",
    ("m", "--data.path", "my photos/a.png", "my photos/b.png"): "my photos/b.png: expected no further argument; a "
    "pattern such as *.jpg, which the shell replaces by all its files, is no value: name their folder",
}


@pytest.mark.parametrize("line", PIECES, ids=" ".join)
def test_a_piece_of_a_path_and_a_file_of_a_pattern_are_known(line, tmp_path, monkeypatch):
    (tmp_path / "my photos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "my photos" / f"{name}.png").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"^{re.escape(PIECES[line])}; tool --help lists all settings$"):
        parse_options(Options, "tool", list(line))


class Terminal(io.StringIO):
    """A standard output for which tyro draws lines, and colours them if it is a terminal."""

    def __init__(self, encoding: str, terminal: bool):
        super().__init__()
        self.kind, self.terminal = encoding, terminal

    encoding = property(lambda self: self.kind)

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("columns", ["80", "40", "400"])
@pytest.mark.parametrize("encoding, terminal", [("utf-8", False), ("utf-8", True), ("ascii", False)])
@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_sentence(line, encoding, terminal, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal(encoding, terminal))
    with pytest.raises(ConfigError, match=f"^{re.escape(MISTAKES[line])}; tool --help lists all settings$"):
        parse_options(Options, "tool", line.split())
    assert not capsys.readouterr().err and not sys.stdout.getvalue()


@pytest.mark.parametrize(
    "line, sentence",
    [
        ("m --rows 0", "--rows 0: expected at least 1"),
        ("m --rate nan", "--rate nan: expected a finite number"),
    ],
)
def test_a_number_out_of_bounds_is_one_sentence(line, sentence):
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        parse_options(Options, "tool", line.split())


def test_what_is_right_is_parsed_and_help_is_printed(capsys):
    found = parse_options(Options, "tool", ["m", "--rows", "3", "--kind", "logistic", "--data.value-range", "0", "1"])
    assert (found.model, found.rows, found.kind, found.data.value_range) == ("m", 3, "logistic", (0.0, 1.0))
    with pytest.raises(SystemExit) as end:
        parse_options(Options, "tool", ["--help"])
    assert end.value.code == 0 and "Do something." in capsys.readouterr().out


def test_a_command_with_a_short_help_names_the_whole_one():
    with pytest.raises(ConfigError, match="bigbigan-train --help-all lists all settings$"):
        parse_options(Options, "bigbigan-train", ["m", "--rows", "x"])
