"""Arrange the tables of the page as rows of cells, and write numbers as people do."""

from dataclasses import dataclass

from bigbigan.metrics.figures import is_share
from eval_linear.result import LARGEST, Figure


@dataclass
class Cell:
    """Hold one cell of a table.

    spread: the standard deviation of a mean, in a column of its own width so that means stand below means; None for
    none.  share: a share in [0, 1] that is drawn as a bar before the text, None for none.
    """

    text: str
    spread: str | None = None
    share: str | None = None

    @property
    def wide(self) -> bool:
        """Whether a phone would break the text into a column of words."""
        return len(self.text) > 30

    @property
    def numeric(self) -> bool:
        """Whether the text is a number, or stands for one that is not there."""
        return self.text[:1] in ("", "–", "−", "+") or self.text[:1].isdigit() or self.text == "none"


@dataclass
class TableRow:
    """Hold the cells of a row; the first names it. ours: whether it is of the trained encoder, and set in bold."""

    cells: list[Cell]
    ours: bool = False


@dataclass
class Table:
    """Hold a table of the page: its heads, its rows with as many cells, and the label that names it."""

    heads: list[str]
    rows: list[TableRow]
    label: str

    @property
    def numeric(self) -> list[bool]:
        """Whether each column but the first holds numbers alone, which are set to the right."""
        return [i > 0 and all(row.cells[i].numeric for row in self.rows) for i in range(len(self.heads))]


def make_table(heads: list[str], rows: list[list[Cell | str]], label: str) -> Table:
    """Return a table whose cells may be plain texts."""
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    return Table(heads, [TableRow(row) for row in cells], label)


def figure_cell(name: str, figure: Figure | float | None, bar: bool = False) -> Cell:
    """Return the cell of the figure `name`, its standard deviation apart, with a bar for its mean if asked for."""
    mean, sign, spread = shown(name, figure).partition(" ±")
    if not bar:
        return Cell(mean, spread=sign + spread)
    value = figure.mean if isinstance(figure, Figure) else figure
    share = min(max(value, 0), 1) if finite(value) else 0
    return Cell(mean, spread=sign + spread, share=f"{share:.4f}")


def finite(value: object) -> bool:
    """Return whether `value` is a number other than NaN, infinity, and whole numbers that no float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def number(value: object) -> str:
    """Return a count with its thousands, another number with four significant digits, a dash for what is not finite."""
    if not finite(value):
        return "–"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return text.replace("-", "−")


def shown(name: str, value: Figure | float | None, unit: bool = False) -> str:
    """Return the figure `name` as mean ± standard deviation; shares in per cent, with the sign % if `unit`."""
    mean, spread = (value.mean, value.sd) if isinstance(value, Figure) else (value, None)
    if not is_share(name) or not finite(mean):
        return number(mean) + (f" ± {number(spread)}" if finite(spread) else "")
    text = f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if finite(spread) else "")
    return f"{text} %" if unit else text


def duration(seconds: object) -> str:
    """Return seconds in the two units that matter, such as "2 h 2 min"."""
    if not finite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
