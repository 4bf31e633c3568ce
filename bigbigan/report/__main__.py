"""Write the page of a run anew, at whatever stage it is: `bigbigan-report RUN`, or `python -m bigbigan.report RUN`.

The page is RUN/report.html.
"""

from pathlib import Path
from typing import Annotated

import tyro

from bigbigan.config.command import let_text_pass, say
from bigbigan.config.parsing import parse_options
from bigbigan.errors import ReportError, exit_with_a_sentence
from bigbigan.files import expanded, printable
from bigbigan.report.page import write_page

PARTS = ("config.yaml", "stats.jsonl", "samples", "reconstructions", "probe.json")  # of which a run folder has some


def main(argv: list[str] | None = None) -> None:
    """Write RUN/report.html and print its path; one sentence and status 2 where RUN is no run folder."""
    with exit_with_a_sentence():
        let_text_pass()
        say(report(parse_options(_arguments, "bigbigan-report", argv)))


def _arguments(run: Annotated[Path, tyro.conf.Positional]) -> Path:
    """Write the page of a run anew: RUN/report.html.

    Args:
        run: The folder of the run, such as runs/NAME.
    """
    return run


def report(run: Path) -> Path:
    """Write the page of a run and return its path. Raises ReportError for what is no run folder."""
    run = expanded(run)
    expected = f"{printable(run)}: expected a run folder, such as runs/NAME"
    if not run.is_dir():
        raise ReportError(f"{expected}, found {'a file' if run.exists() else 'no folder of this name'}")
    if not any((run / part).exists() for part in PARTS):
        raise ReportError(f"{expected}, found a folder with none of {', '.join(PARTS)}")
    return write_page(run)


if __name__ == "__main__":
    main()
