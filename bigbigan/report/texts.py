"""The text at the end of a run."""

import shlex
from pathlib import Path

from bigbigan.training.start import block


def closing_block(folder: Path, images_seen: int, figures: str, page: Path, best: str = "") -> str:
    """Return which files to open, and what to do next. best: which checkpoint a choice kept, and by which images."""
    newest = {kind: max((folder / kind).glob("*.png"), default="none") for kind in ("samples", "reconstructions")}
    return block(
        f"finished: {images_seen:,} images",
        [
            ("figures", figures),
            ("samples", str(newest["samples"])),
            ("reconstructions", f"{newest['reconstructions']} (input | reconstruction)"),
            ("page", f"{page}: curves, the film of the grids, figures; open it in a browser"),
            ("curves", str(folder / "stats.jsonl")),
            ("model", str(folder / "release")),
            *([("best", best)] if best else []),
            ("all figures", f"bigbigan-probe {shlex.quote(str(folder))}"),
            (
                "next",
                f'python -c "import bigbigan; '
                f"print(bigbigan.encode('IMAGES', model='{folder}', outputs='avepool_feat').shape)\"",
            ),
        ],
    )
