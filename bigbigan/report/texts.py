"""The text at the end of a run."""

import json
import shlex
import textwrap
from pathlib import Path

from bigbigan.report.tiles import Lead
from bigbigan.training.start import block

WIDTH = 120  # of a line of the terminal


def closing_block(folder: Path, images_seen: int, lead: Lead, page: Path, best: str = "") -> str:
    """Return what the model is worth, which files to open, and what to do next.

    lead: what comes first on the page; the same figures come first here.  best: which checkpoint a choice kept, and by
    which images.
    """
    newest = {kind: max((folder / kind).glob("*.png"), default="none") for kind in ("samples", "reconstructions")}
    figures = _figures(lead)
    return block(
        f"finished: {images_seen:,} images",
        [
            *zip(("figures", *[""] * len(figures)), figures, strict=False),
            ("samples", str(newest["samples"])),
            ("reconstructions", f"{newest['reconstructions']} (input | reconstruction)"),
            ("page", f"{page}: curves, the grids of samples along training, figures; open it in a browser"),
            ("curves", str(folder / "stats.jsonl")),
            ("model", str(folder / "release")),
            *([("best", best)] if best else []),
            ("all figures", f"bigbigan-probe {shlex.quote(str(folder))}"),
            (
                "next",
                "python -c "
                + shlex.quote(
                    "import bigbigan; "
                    f'print(bigbigan.encode("IMAGES", model={json.dumps(str(folder))}, outputs="avepool_feat").shape)'
                ),
            ),
        ],
    )


def _figures(lead: Lead) -> list[str]:
    """Return a line for each figure that says what the model is worth, and the sentence that explains them."""
    lines = [f"{tile.name}: {tile.value}" + f" ({tile.note})" * bool(tile.note) for tile in lead.tiles[: lead.worth]]
    return [*lines, *textwrap.wrap(lead.sentence, WIDTH - 20)] or ["not measured"]
