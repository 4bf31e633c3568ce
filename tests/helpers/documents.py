"""The blocks of README.md and of the pages under docs/: which language they are in, and how they are marked.

A block of code is fenced, or indented by four spaces after a blank line (then it is of a shell). A comment, which no
reader sees, may end the last line before one:

    <!-- not run: WHY -->       tests/docs/test_blocks.py does not run it, and why
    <!-- from: FILE, NAME -->   its lines stand in the function or class NAME of FILE
    <!-- fails: STATUS -->      the command ends with this exit status and prints the text of the next block
    <!-- raises: NAME -->       the Python raises this error, with the text of the next block
"""

import re
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

MARK = re.compile(r"<!-- (not run|from|fails|raises): (.+?) -->$")
SHELL, NO_CODE = ("", "sh", "bash", "shell"), ("text",)


class Block(NamedTuple):
    """A block of code on a page.

    line: of its first line of code, from 1.  language: "shell", "python", "text", or another fence's word.  mark, why:
    of the comment before it, "" without one.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str
    why: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return README.md, CONTRIBUTING.md, CHANGELOG.md and every page under docs/."""
    return [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *(ROOT / "docs").rglob("*.md")]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, from top to bottom."""
    name, lines = page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8").splitlines()
    found, i, mark, in_list = [], 0, ("", ""), False
    while i < len(lines):
        line, first = lines[i], i
        if fence := re.match(r"\s*(```+)\s*([\w-]*)", line):
            end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == fence[1])
            language, body, i = fence[2], lines[i + 1 : end], end + 1
        elif line.startswith("    ") and not in_list and (not first or not lines[first - 1].strip()):
            end = i
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            language, body, i = "", lines[i:end], end
        else:
            in_list = bool(re.match(r"([-*]|\d+\.) ", line)) or (in_list and (not line.strip() or line[0] == " "))
            if line.strip():
                comment = MARK.search(line)
                mark = (comment[1], comment[2]) if comment else ("", "")
            i += 1
            continue
        language = "shell" if language in SHELL else language
        indent = min((len(text) - len(text.lstrip()) for text in body if text.strip()), default=0)
        text = "\n".join(text[indent:] for text in body).strip("\n")
        found.append(Block(name, first + 1, language, text, *mark))
        mark = ("", "")
    return found


def all_blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]
