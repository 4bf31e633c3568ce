"""Read the pictures of a run as data URLs: the film of its grids, and the sheets of its evaluation."""

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from bigbigan.files import state_of
from eval_linear.result import ProbeResult

FRAMES = 40  # at most
FILM_LIMIT, SHEETS_LIMIT = 9_000_000, 4_500_000  # characters of data URLs; with them the page stays below 15 MB
PLAIN_BYTES, LONGEST_SIDE = 200_000, 1600  # a picture above either is stored as JPEG with no side longer than that
PIXEL_ART = 800  # a picture narrower than this is enlarged without smoothing


def read_film(folder: Path) -> dict:
    """Return the grids of at most FRAMES times, evenly spread from first to last; of fewer where they are large.

    The result is {"times": [images seen], "samples": [picture or None], "reconstructions": [picture or None]}, with one
    of each for every time.
    """
    found = {kind: _by_time(folder / kind) for kind in ("samples", "reconstructions")}
    every = sorted(set().union(*found.values()))
    read: dict[Path, dict | None] = {}
    count = min(FRAMES, len(every))
    while True:
        times = evenly_spaced(every, count)
        for paths in found.values():
            read |= {paths[time]: picture(paths[time]) for time in times if time in paths and paths[time] not in read}
        film = {kind: [read.get(paths.get(time)) for time in times] for kind, paths in found.items()}
        size = sum(len(frame["src"]) for frames in film.values() for frame in frames if frame)
        if size <= FILM_LIMIT or count <= 1:
            return {"times": times, **film}
        count = max(1, min(count - 1, count * FILM_LIMIT // size))


def _by_time(folder: Path) -> dict[int, Path]:
    return {int(path.stem): path for path in folder.glob("*.png") if path.stem.isdecimal()}


def evenly_spaced(times: list[int], count: int) -> list[int]:
    """Return `count` of the sorted times, those nearest to an even spacing from the first to the last.

    A count of 1 gives the last.
    """
    if count <= 1:
        return times[-1:] if count else []
    steps = [times[0] + i * (times[-1] - times[0]) / (count - 1) for i in range(count)]
    chosen, left = [], list(times)
    for i, step in enumerate(steps):
        ahead = len(left) - (count - 1 - i)  # so many may be passed over, and enough remain for the steps to come
        k = min(range(ahead), key=lambda k: abs(left[k] - step))
        chosen.append(left[k])
        left = left[k + 1 :]
    return chosen


def picture(path: Path) -> dict | None:
    """Return a PNG or JPEG as {"src": data URL, "width", "height"}, or None where it is absent or damaged.

    A run in training writes its page many times: a file that has not changed is not read again.
    """
    return _picture(path, state_of(path))


@lru_cache(maxsize=4 * FRAMES)
def _picture(path: Path, state: str) -> dict | None:
    """Return `picture` of a file in the state of `files.state_of`.

    A file of more than PLAIN_BYTES or a side of more than LONGEST_SIDE becomes a JPEG without chroma subsampling.
    """
    try:
        content = path.read_bytes()
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        kind = image.format.lower()
        image.load()
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ):  # Pillow's ways of saying that a file is no use
        return None
    if len(content) > PLAIN_BYTES or max(image.size) > LONGEST_SIDE:
        image = image.convert("RGB")
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        buffer, kind = io.BytesIO(), "jpeg"
        image.save(buffer, kind, quality=88, subsampling=0)
        content = buffer.getvalue()
    text = base64.b64encode(content).decode()
    return {"src": f"data:image/{kind};base64,{text}", "width": image.width, "height": image.height}


@dataclass
class SheetView:
    """Hold a picture of the evaluation with its title and caption; image None: `reason` says why it is not shown."""

    title: str
    path: str
    caption: str
    image: dict | None
    reason: str = ""

    @property
    def pixels(self) -> bool:
        """Whether the picture is so small that it is enlarged without smoothing."""
        return self.image is not None and self.image["width"] < PIXEL_ART


def sheets(folder: Path, probe: ProbeResult) -> list[SheetView]:
    """Return the pictures that the evaluation made, such as neighbours; none from outside the run folder."""
    found, left = [], SHEETS_LIMIT
    for sheet in probe.sheets:
        inside = _is_inside(folder, sheet.path)
        image = picture(folder / sheet.path) if inside else None
        if image and len(image["src"]) <= left:
            left -= len(image["src"])
            found.append(SheetView(sheet.title, sheet.path, sheet.caption, image))
            continue
        reason = "makes the page too large" if image else "is absent or damaged"
        found.append(SheetView(sheet.title, sheet.path, "", None, reason if inside else "is outside the run folder"))
    return found


def _is_inside(folder: Path, path: str) -> bool:
    """Return whether `path` leads to a place in `folder`, links followed; False for what can be no path."""
    try:
        return (folder / path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a null character, half a character
        return False
