"""HTML of numbers and texts. Every text that is not markup already is escaped on its way in."""

import html
import math
import re
from collections.abc import Iterable

from bigbigan.metrics.figures import is_share
from eval_linear.result import Figure


class Html(str):
    """Markup. Any other string that becomes part of markup is escaped."""


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element; `class_` gives class, `data_x` data-x, and an attribute that is None is left out."""
    given = [
        f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    opening = f"<{' '.join([name, *given])}>"
    return Html(opening if name == "img" else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[object]) -> Html:
    return Html("".join(child if isinstance(child, Html) else html.escape(str(child)) for child in children))


def table(heads: list[str], rows: list[list[object]], label: str, classes: list[str | None] | None = None) -> Html:
    """A table in a box that scrolls by itself. The first column names the rows; columns of numbers are set to the
    right.

    rows: cells, as many as heads.  classes: of each row.
    """
    right = [i > 0 and all(_is_number(row[i]) for row in rows) for i in range(len(heads))]
    side = ["n" if numeric else None for numeric in right]
    head = tag("tr", *(tag("th", text, scope="col", class_=c) for text, c in zip(heads, side, strict=True)))
    body = []
    for row, kind in zip(rows, classes or [None] * len(rows), strict=True):
        cells = [tag("td", cell, class_=c) for cell, c in zip(row[1:], side[1:], strict=True)]
        wide = "long" if len(str(row[0])) > 30 else None  # or a phone would break a sentence into a column of words
        body.append(tag("tr", tag("th", row[0], scope="row", class_=wide), *cells, class_=kind))
    return box(tag("table", tag("thead", head), tag("tbody", *body)), label)


def box(content: Html, label: str) -> Html:
    """What is too wide for a phone scrolls in here, by touch or keyboard, and the page stays."""
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def _is_number(cell: object) -> bool:
    text = re.sub(r"<[^>]*>", "", str(cell)) if isinstance(cell, Html) else str(cell)
    return text[:1] in ("", "–", "−", "+") or text[:1].isdigit() or text == "none"


def finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: object) -> str:
    """A count with its thousands, any other number with four significant digits; a dash for what is no finite
    number."""
    if not finite(value):
        return "–"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return text.replace("-", "−")


def shown(name: str, value: object, unit: bool = False) -> str:
    """The figure `name`, a number or a Figure: mean ± sd, shares in per cent (the sign % only with `unit`)."""
    mean, spread = (value.mean, value.sd) if isinstance(value, Figure) else (value, None)
    if not is_share(name) or not finite(mean):
        return number(mean) + (f" ± {number(spread)}" if finite(spread) else "")
    text = f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if finite(spread) else "")
    return f"{text} %" if unit else text


def duration(seconds: object) -> str:
    """Seconds in the two units that matter."""
    if not finite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
