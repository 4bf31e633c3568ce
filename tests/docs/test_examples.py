"""The notebooks of examples/ run at toy length, hold their outputs, and are small."""

import json
import re
import shlex
from pathlib import Path
from unittest import mock

import pytest

from tests.conftest import ROOT
from tests.docs.test_blocks import run_command

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def code_of(cell: dict, toy: dict) -> str:
    """Return a cell's Python with its lengths at toy length, and `!command` lines as calls of `shell`."""
    lines = []
    for line in "".join(cell["source"]).splitlines():
        command = re.match(r"(\s*)!(.*)", line)
        lines.append(f"{command[1]}shell(f{command[2]!r})" if command else line)
    text = "\n".join(lines)
    for name, value in toy.items():
        text = re.sub(rf"^({name} = ).*$", rf"\g<1>{value}", text, flags=re.MULTILINE)
    return text


def shell(command: str) -> None:
    """Run a command of a notebook in this process; what it pipes its output to only shortens it."""
    assert run_command(shlex.split(command.split("|")[0])) == 0, command


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_read_without_running_it(path):
    """Small, with the outputs of one run from top to bottom, without an error, and without a place of its author's."""
    text = path.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert len(text) < 300_000
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell["outputs"] for cell in cells)
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert not re.search(r'"(?:/root|/home|/tmp|/work)\b|/tmp/', text)


@pytest.mark.run
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    notebook = json.loads(path.read_text(encoding="utf-8"))
    toy, names = notebook["metadata"]["bigbigan"]["toy"], {"shell": shell}
    source = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    assert all(re.search(rf"^{name} = ", source, re.MULTILINE) for name in toy)
    with mock.patch("builtins.print"):
        for number, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] == "code":
                exec(compile(code_of(cell, toy), f"{path.name}, cell {number}", "exec"), names)
