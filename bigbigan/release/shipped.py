"""The models that come with the package, each a release folder `shipped/NAME`, and what they are worth."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from bigbigan.errors import CheckpointError
from bigbigan.files import printable, read_json

SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class ShippedModel:
    """Describe a model that comes with the package.

    name: what `bigbigan.load` takes.  data: what it was trained on.  image_size: of G in pixels.  images_seen: in
    training.  megabytes: of its weights, 10⁶ bytes.  natural: whether it saw natural images; `encode` without a model
    uses the best of these.  worth: its figures by name, with their unit.  folder: the release.
    """

    name: str
    data: str
    image_size: int
    images_seen: int
    megabytes: float
    natural: bool
    worth: dict[str, str]
    folder: Path

    def __str__(self) -> str:
        kind = "natural images" if self.natural else "a toy model"
        figures = "; ".join(f"{name} {value}" for name, value in self.worth.items()) or "not measured"
        return f"{self.name}: {kind}, {self.data}, {self.image_size} px, {self.megabytes:.2f} MB; {figures}"


def models() -> list[ShippedModel]:
    """Return the models that come with the package: natural images first, and of these the one that saw most."""
    found = [_described(path.parent) for path in SHIPPED.glob("*/config.json")]
    return sorted(found, key=lambda model: (not model.natural, -model.images_seen, model.name))


def names() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def known_names(asked: str) -> str:
    """Return a phrase that names the models that come with the package, those most like `asked` first."""
    near = difflib.get_close_matches(asked.lower(), names(), n=3)
    listed = [*near, *(name for name in names() if name not in near)]
    question = f"did you mean {near[0]!r}? " if near else ""
    return f"{question}models that come with the package: {', '.join(listed) or 'none'}"


def default_model() -> ShippedModel:
    """Return the model that `encode` uses where none is named. Raises CheckpointError without one of natural images."""
    found = models()
    if found and found[0].natural:
        return found[0]
    toys = "; ".join(f"model={model.name!r} ({model.data})" for model in found)
    raise CheckpointError(
        "no model was named, and no model of natural images comes with this version: pass model=…, a run folder, "
        "checkpoint, release folder or hub id" + (f", or a toy model that comes with it: {toys}" if toys else "")
    )


def _described(folder: Path) -> ShippedModel:
    config = read_json(folder / "config.json")
    card = config["card"]
    return ShippedModel(
        name=folder.name,
        data=printable(str(card["data"]["path"])),
        image_size=int(config["model"]["image_size"]),
        images_seen=int(card["images_seen"]),
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        natural=card.get("natural") is True,
        worth=card.get("worth") or {},
        folder=folder,
    )
