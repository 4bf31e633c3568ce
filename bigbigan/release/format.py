"""Release format 1, written and read: a folder of config.json, model.safetensors and README.md.

config.json holds the format, the SHA-256 of the weights, the flat section `model` and the card; the weights are
averaged E and G with their sampling statistics, and D unless it was left out. Nothing is unpickled.
"""

import copy
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bigbigan.config import Model, check_model, merged
from bigbigan.distributed import local_only
from bigbigan.errors import ExportError
from bigbigan.files import check_writable, give_usual_rights, printable, read_json, sha256
from bigbigan.latents import sample_prior
from bigbigan.model import PARTS, BigBiGAN
from bigbigan.networks.weights import check_weights, load_weights
from bigbigan.training.checkpoint import complete
from bigbigan.training.pictures import sheet

FORMAT = 1
FILES = ("model.safetensors", "samples.png", "README.md", "config.json")  # the config last: it makes a release whole
MARK = {"library_name": "bigbigan"}  # metadata of the weights of a release; two keys would have no fixed order
UNKNOWN = {"name": "BigBiGAN", "images_seen": 0, "seed": "unknown", "data": {}}  # what a model's card may lack
SAMPLES = 64  # of the grid on the card
MAPPED = 2**24  # bytes of a file that are mapped into memory at a time
CHECKED = "\n<!-- {}: checksum of the text above. A card that is edited stays when the run is finished again. -->\n"
HEAD = "---\nlibrary_name: bigbigan\n"  # of a card
README = """---
library_name: bigbigan
{tags}
---
# {name}

{what}, from random weights{init}.

| | |
|---|---|
| data | {path}, split {split} |
| real images seen | {images_seen:,} |
| image size | {image_size} px{encoder_size} |
| latents | {latent_dim}, {prior} prior |
{encoder}| seed | {seed} |

![64 samples of random latents, not selected](samples.png)

*Samples of random latents, not selected.*

```python
import bigbigan

{example}
```

`model.safetensors` holds the averaged {averaged} with {statistics}{discriminator}.
Use it within the terms of the data it was trained on. Figures of this model: {figures}.
"""
WITH_ENCODER = {
    "tags": """pipeline_tag: image-feature-extraction
tags: [bigbigan, gan, representation-learning, unconditional-image-generation]""",
    "what": """A BigBiGAN: an encoder, a generator and a joint discriminator trained against each other on {seen}
(Donahue & Simonyan, NeurIPS 2019)""",
    "example": 'features = bigbigan.encode(images, model="PATH OR HUB ID OF THIS FOLDER", outputs="avepool_feat")',
    "averaged": "encoder and generator",
    "statistics": "their sampling statistics",
}
WITHOUT_ENCODER = {
    "tags": "tags: [bigbigan, gan, unconditional-image-generation]",
    "what": "A GAN: a generator and a discriminator trained against each other on {seen}; it has no encoder",
    "example": 'images = bigbigan.to_pil(bigbigan.generate(8, model="PATH OR HUB ID OF THIS FOLDER"))',
    "averaged": "generator",
    "statistics": "its sampling statistics",
}


def check_place(folder: Path) -> None:
    """Raise ExportError unless a release may be written to this path: a new one, a folder of other files, a release.

    Raises InputError where nothing can be written.

    A folder whose README.md, config.json, samples.png or model.safetensors belong to something else is refused: they
    would be replaced.
    """
    expected = f"{printable(folder)}: expected a new folder, or a release to replace"
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{expected}, found a file; choose another path")
    if not folder.exists():
        check_writable(folder)
    for run in (folder, folder.parent) if folder.name == "release" else (folder,):
        if complete(run / "checkpoints"):
            found = "a run" if run == folder else "the one that a run wrote"
            raise ExportError(f"{expected}, found {found}; choose another path")
    there = [name for name in FILES if (folder / name).exists()]
    if there and not _is_release(folder) and not _is_cut_short(folder, there):
        raise ExportError(f"{expected}, found a folder with another {', '.join(there)}; choose another path")


def _is_cut_short(folder: Path, there: list[str]) -> bool:
    """Return whether a folder has the first files of a release whose writing was interrupted."""
    if there[0] != FILES[0] or FILES[-1] in there:
        return False
    if "README.md" in there and not read_card(folder / "README.md").startswith(HEAD):
        return False
    with suppress(OSError, SafetensorError), safe_open(folder / FILES[0], "pt") as file:
        return file.metadata() == MARK
    return False


def _is_release(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and {"format", "sha256", "model"} <= config.keys()


def write_release(
    folder: Path, model: BigBiGAN, card: dict, figures: str = "not measured", readme: str = ""
) -> None:  # fmt: skip
    """Write folder/{config.json, model.safetensors, samples.png, README.md}, complete or absent.

    An older release is replaced as a whole; in a folder of other files too, each of the four by itself.
    card: what `release.load.card` returns.  figures: a phrase for the README.  readme: the whole README instead, of a
    model that was not trained here.
    """
    folder = Path(os.path.abspath(folder))  # "." has no name
    beside = folder.with_name(f".writing-{folder.name}")
    if beside.exists():  # what a kill left
        shutil.rmtree(beside)
    beside.mkdir(parents=True)
    model.card, model.readme = card, readme
    known = next(model.parameters()).device.type in ("cpu", "cuda")  # XLA's have no storage that could be written
    (model if known else copy.deepcopy(model).cpu()).save_pretrained(beside)
    if not readme:
        write_readme(beside, model, figures)
    if folder.is_symlink() or (folder.exists() and {path.name for path in folder.iterdir()} - set(FILES)):
        for name in FILES:
            os.replace(beside / name, folder / name)
        beside.rmdir()
        return
    older = folder.with_name(f".replaced-{folder.name}")
    if older.exists():  # what a kill left
        shutil.rmtree(older)
    replaces = folder.exists()
    if replaces:
        os.rename(folder, older)
    os.rename(beside, folder)
    if replaces:
        shutil.rmtree(older)


def write_weights(model: BigBiGAN, folder: Path) -> None:
    """Write model.safetensors and config.json into `folder`.

    Raises ExportError for a model that lacks a network, or that its config does not describe.
    """
    if model.left_out:
        raise ExportError(
            f"{folder}: expected a whole model to write, found one that was loaded without its "
            f"{' and '.join(model.left_out)}; load it without parts"
        )
    tensors, weights = _described(model, folder), folder / "model.safetensors"
    try:
        save_file({k: v.contiguous() for k, v in tensors.items()}, weights, metadata=MARK)
    except SafetensorError as error:  # its name for a full disk
        raise OSError(f"{weights}: {error}") from None
    give_usual_rights(weights)
    config = {
        "format": FORMAT,
        "sha256": sha256(weights),
        "model": dataclasses.asdict(model.config),
        "card": model.card,
    }
    if model.discriminator is None:
        config["discriminator"] = False
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _described(model: BigBiGAN, folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a model by the names that networks of its config have. Raises ExportError for others.

    A network inside torch.compile has another prefix, which is left out: reading it would find unknown names.
    """
    cure = "save its weights by torch.save(model.state_dict(), ...)"
    if model.config is None:
        raise ExportError(f"{folder}: expected networks of this library, found a model of your own networks; {cure}")
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in model.state_dict().items()}
    try:
        with torch.device("meta"):
            own = BigBiGAN.from_config(model.config, model.discriminator is not None).state_dict()
    except RuntimeError:  # of a backbone that computes with its initial weights
        return tensors
    try:
        check_weights(own, tensors, str(folder))
    except ValueError as error:
        raise ExportError(f"{error}; a changed network could not be read again: {cure}") from None
    return tensors


def write_card(model: BigBiGAN, folder: Path) -> None:
    """Write samples.png, a grid of samples, and README.md: the card that the model was read with, else a new one."""
    images = _samples(model)
    sheet(images, columns=8, scale=max(1, 32 // images.shape[-1])).save(folder / "samples.png")
    if model.readme and not changed(model):
        (folder / "README.md").write_text(model.readme, encoding="utf-8")
    else:
        since = " since its weights were changed, after the training that this card tells of"
        write_readme(folder, model, "not measured" + since * bool(model.readme))


def changed(model: BigBiGAN) -> bool:
    """Return whether a parameter was written to since the model was read, as an optimiser does."""
    counted = ((name, p) for name, p in model.named_parameters() if name in model.read_as and not p.is_inference())
    return any(p._version > model.read_as[name] for name, p in counted)


@torch.inference_mode()
def _samples(model: BigBiGAN) -> Tensor:
    """Return samples of random latents (SAMPLES, 3, S, S) on the CPU; a conditional model draws its classes in turn."""
    generator = copy.deepcopy(model.generator).float().eval()  # a small export has weights in bf16
    place = next(generator.parameters()).device
    z = sample_prior(model.prior, 0, "card", np.arange(SAMPLES), generator.latent_dim).to(place)
    classes = [None] * SAMPLES if not model.classes else (torch.arange(SAMPLES, device=place) % model.classes).split(8)
    with local_only():
        images = [generator(part, label).float().cpu() for part, label in zip(z.split(8), classes, strict=False)]
    return torch.cat(images)


def write_readme(folder: Path, model: BigBiGAN, figures: str, worth: str = "") -> None:
    """Write the model card, folder/README.md.

    figures: a phrase.  worth: a section on what the model is worth, see `card.worth`.
    """
    config, card = model.config, UNKNOWN | model.card
    has_encoder = config.encoder != "none"
    words = WITH_ENCODER if has_encoder else WITHOUT_ENCODER
    seen = "images with their classes" if config.classes else "images without labels"
    encoder_size = config.encoder_image_size or config.image_size
    text = README.format(
        **words | {"what": words["what"].format(seen=seen)},
        name=card["name"],
        path=card["data"].get("path", "unknown"),
        split=card["data"].get("split", "unknown"),
        images_seen=card["images_seen"],
        seed=card["seed"],
        image_size=config.image_size,
        encoder_size=f"; the encoder sees {encoder_size} px" if has_encoder else "",
        latent_dim=config.latent_dim or model.generator.latent_dim,
        prior=config.prior,
        encoder=f"| encoder | {config.encoder} × {config.encoder_width:g} |\n" if has_encoder else "",
        init=f", after {config.init_from}" if config.init_from else "",
        figures=figures,
        discriminator=", and the discriminator" if model.discriminator is not None else "",
    )
    (folder / "README.md").write_text(text + worth, encoding="utf-8")


def read_release_or_hub(
    model_id: str, revision=None, cache_dir=None, force_download=False, local_files_only=False, *, token=None,
    parts: Collection[str] | None = None, **_,
) -> BigBiGAN:  # fmt: skip
    """Read a release from a folder, or from the hub; the options are those of `hf_hub_download`, and `parts`."""

    def file(name: str) -> Path:
        if Path(model_id).is_dir():
            return Path(model_id) / name
        found = hf_hub_download(
            model_id,
            name,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        return Path(found)

    model = read_release(file("config.json"), file("model.safetensors"), model_id, parts)
    with suppress(EntryNotFoundError):  # a model without a card is one all the same
        model.readme = read_card(file("README.md"))
    return model


def mark_card(folder: Path) -> None:
    """Append its checksum to folder/README.md, in a comment: `changed_card` sees by it whether somebody edited it."""
    text = read_card(folder / "README.md")
    (folder / "README.md").write_text(text + CHECKED.format(checksum(text)), encoding="utf-8")


def changed_card(folder: Path) -> str:
    """Return the text of folder/README.md if it is not as `mark_card` left it, thus perhaps edited; else ""."""
    text = read_card(folder / "README.md")
    written, _, rest = text.rpartition(CHECKED.split("{")[0])
    return "" if written and CHECKED.split("{")[0] + rest == CHECKED.format(checksum(written)) else text


def checksum(text: str) -> str:
    """Return the first digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_card(path: Path) -> str:
    """Return the text of a model card; "" where there is none that can be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def read_release(settings: Path, weights: Path, where: str, parts: Collection[str] | None = None) -> BigBiGAN:
    """Read config.json and model.safetensors into a model in evaluation mode; ValueError says what does not fit.

    parts: as of `read_model`.
    """
    try:
        config = read_json(settings)
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}/config.json: {error}") from None
    if config.get("format") != FORMAT:
        found = config.get("format", "none")
        raise ValueError(f"{where}/config.json: expected a bigbigan release of format {FORMAT}, found {found!r}")
    expected = config.get("sha256")
    try:
        if expected is not None and expected != sha256(weights):
            raise ValueError(
                f"{weights}: its checksum is not the one in config.json; the file is damaged, get it again"
            )
        places = dict.fromkeys(names_in(weights), weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{where}/model.safetensors: expected tensors, found {type(error).__name__}: {error}"
        ) from None
    with_discriminator = config.get("discriminator") is not False
    model = read_model(config.get("model"), places, (f"{where}/config.json", where), with_discriminator, parts)
    model.card = config["card"] if isinstance(config.get("card"), dict) else {}
    return model


def read_model(
    section: object,
    places: dict[str, Path],
    where: tuple[str, str],
    discriminator: bool = True,
    parts: Collection[str] | None = None,
) -> BigBiGAN:
    """Build the networks of a section `model` with the weights of files, in evaluation mode.

    places: the safetensors file of each tensor, by the tensor's name.  where: what the section and the tensors came
    from, for messages.  discriminator: False if the files hold none.  parts: names of the networks to load, those that
    the model has of them; None for all.

    The networks are outlined without memory first: whatever size the section asks for, no more is taken than the files
    hold, and no time is spent on random weights that would be overwritten. Raises ValueError if weights and section do
    not fit.
    """
    config = _settings(section, where[0])
    has = [name for name in PARTS if name != "discriminator" or discriminator]
    has = [name for name in has if name != "encoder" or config.encoder != "none"]
    wanted = [name for name in has if parts is None or name in parts]
    if len(wanted) < len(has):
        places = {name: file for name, file in places.items() if name.partition(".")[0] in wanted}
    model = _outline(config, wanted, places, where)
    if model is not None:
        own = model.state_dict()
        model.load_state_dict(
            {name: copied.to(own[name].dtype) for name, copied in copies(places).items()}, assign=True
        )
    if model is None or _has_meta_tensors(model):  # of a backbone that computes with what no file holds
        model = BigBiGAN.from_config(config, parts=wanted)
        load_weights(model, copies(places), where[1])
    model.left_out = tuple(name for name in has if name not in wanted)
    model.read_as = {name: p._version for name, p in model.named_parameters() if not p.is_inference()}
    return model.eval()


def _settings(section: object, where: str) -> Model:
    """Return the settings of a section `model`. Raises ValueError for one that cannot be."""
    if not isinstance(section, dict):
        raise ValueError(f"{where}: expected the settings of a model, found {type(section).__name__}")
    unknown = set(section) - {f.name for f in dataclasses.fields(Model)}
    if unknown:
        raise ValueError(f"{where}: unknown keys {', '.join(sorted(unknown))}; was it written by a newer version?")
    config = merged(Model(), section, where)
    try:
        check_model(config)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return config


def _outline(config: Model, parts: Collection[str], places: dict[str, Path], where: tuple[str, str]) -> BigBiGAN | None:
    """Build networks without values and check that the files' tensors fit them.

    None for a backbone that cannot be built so, since it computes with its initial weights.
    """
    try:
        with torch.device("meta"):
            model = BigBiGAN.from_config(config, parts=parts)
            own = model.state_dict()
    except RuntimeError:
        return None
    except ValueError as error:
        raise ValueError(f"{where[0]}: {error}") from None
    check_weights(own, dict(_mapped(places)), where[0])
    return model


def _has_meta_tensors(network: nn.Module) -> bool:
    """Return whether a tensor of the network has no values: a parameter, a buffer or an attribute of a module."""
    attributes = (value for module in network.modules() for value in vars(module).values())
    tensors = (value for value in attributes if isinstance(value, Tensor))
    return any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers(), *tensors))


def names_in(file: Path) -> list[str]:
    """Return the names of the tensors in a safetensors file, all of which torch can read; raises what it raises."""
    with safe_open(file, "pt") as opened:
        return [name for name in opened.keys() if opened.get_tensor(name) is not None]  # noqa: SIM118


def copies(places: dict[str, Path]) -> dict[str, Tensor]:
    """Return the tensors of safetensors files as copies in memory, which do not change with the files.

    A file is mapped anew for every 16 MiB, so that what was read of it does not stay in memory beside the copies.
    """
    found = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in _mapped(places)}
    piece: list[tuple[str, int, int]] = []  # (name, first entry, the one after the last)
    size = 0
    for name, tensor in found.items():
        step = MAPPED // tensor.element_size()
        for first in range(0, tensor.numel(), step):
            piece.append((name, first, min(first + step, tensor.numel())))
            size += (piece[-1][2] - first) * tensor.element_size()
            if size >= MAPPED:
                _copy(piece, places, found)
                piece, size = [], 0
    _copy(piece, places, found)
    return found


def _copy(piece: list[tuple[str, int, int]], places: dict[str, Path], found: dict[str, Tensor]) -> None:
    """Copy entries [first, end) of tensors from their files into `found`; the files are closed afterwards."""
    mapped = dict(_mapped({name: places[name] for name, _, _ in piece}))
    for name, first, end in piece:
        found[name].view(-1)[first:end] = mapped[name].view(-1)[first:end]


def _mapped(places: dict[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of safetensors files by name, each a view of its file that is read where it is looked at."""
    for file in dict.fromkeys(places.values()):
        with safe_open(file, "pt") as opened:
            for name in [name for name, place in places.items() if place == file]:
                yield name, opened.get_tensor(name)
