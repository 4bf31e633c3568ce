"""Load a model from anything that holds one: a run, a checkpoint, a release, or a Hugging Face hub id."""

import dataclasses
import difflib
import logging
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

from bigbigan.config import EARLIER, Config, Model, check_model, flatten
from bigbigan.config.cross_checks import takes_resnet_settings
from bigbigan.errors import CheckpointError, ConfigError
from bigbigan.files import check_inside, check_links, expanded, printable
from bigbigan.model import BigBiGAN, absence
from bigbigan.networks.encoder import Encoder
from bigbigan.networks.factory import build_encoder, resolve_latent_dim
from bigbigan.networks.weights import check_weights
from bigbigan.release.format import read_card, read_model, read_release
from bigbigan.release.shipped import SHIPPED, known_names, names
from bigbigan.training.checkpoint import complete, read
from bigbigan.training.state import FILES

log = logging.getLogger(__name__)

EXPECTED = "expected a run folder, checkpoint, release or hub id"  # `known_names` adds the names


@torch.inference_mode(False)
def load_model(source: str | os.PathLike[str], parts: Collection[str] | None = None) -> BigBiGAN:
    """Load the averaged E and G from a run, checkpoint or release folder, a name or a hub id, in evaluation mode.

    From a run folder its release is loaded, or its newest checkpoint while there is no release. A name is that of a
    model that comes with the package; a folder of that name here comes first if it holds a model. Inside
    `torch.inference_mode` the weights are ordinary tensors too, which can be trained later.
    parts: names of the networks to load, those that the model has of them; None for all. Raises CheckpointError.
    """
    if str(source).strip() == "":  # of an unset variable of the shell
        raise CheckpointError(f"{EXPECTED}, found an empty path; '.' is the current folder")
    folder = expanded(source)
    try:
        if folder.is_dir():
            return _from_folder(source, folder, parts)
    except ValueError as error:  # a CheckpointError too
        raise CheckpointError(str(error)) from None
    except OSError as error:
        found = f"found {error.strerror or error}"
        raise CheckpointError(f"{printable(source)}: {EXPECTED}; {found}") from None
    if not folder.exists() and str(source) in names():
        return _release(SHIPPED / str(source), parts)
    if folder.exists() or not _may_be_hub_id(str(source)):
        raise CheckpointError(f"{printable(source)}: {EXPECTED}; {_found(folder)}")
    return _from_hub(str(source), folder, parts)


def _may_be_hub_id(source: str) -> bool:
    """Return whether a name that is no folder here may be OWNER/NAME of the hub: not runs/NAME, nor a path here."""
    owner = source.split("/")[0]
    return (
        bool(re.fullmatch(r"[\w.-]+/[\w.-]+", source)) and owner not in (".", "..", "runs") and not Path(owner).exists()
    )


def _from_hub(name: str, folder: Path, parts: Collection[str] | None) -> BigBiGAN:
    """Load a release from the hub, which is asked once, without retries, unless it is in the cache already."""
    try:
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            get_hf_file_metadata(hf_hub_url(name, "config.json"))
        return BigBiGAN.from_pretrained(name, parts=parts)
    except Exception as error:  # the hub's errors have many types; each becomes one sentence
        if isinstance(error, ValueError) and not isinstance(error, HFValidationError):  # it does not fit
            raise CheckpointError(str(error)) from None
        raise CheckpointError(
            f"{printable(name)}: {EXPECTED}; {_found(folder)}; and the hub gave none ({_hub_said(error)})"
        ) from None


def _hub_said(error: Exception) -> str:
    if isinstance(error, RepositoryNotFoundError):
        return "it has no such model, or a private one"
    if isinstance(error, EntryNotFoundError):
        return "that repository holds no config.json of a release"
    return type(error).__name__


def _from_folder(source: str | os.PathLike[str], folder: Path, parts: Collection[str] | None) -> BigBiGAN:
    check_links(folder)
    if (folder / "config.json").is_file():
        return _release(folder, parts)
    if (folder / "state.json").is_file():
        return _from_checkpoint(folder, parts)
    if (folder / "release" / "config.json").is_file():
        model = _release(folder / "release", parts)
        _doubt_age(folder, model)
        return model
    if (folder / "checkpoints").is_dir() and complete(folder / "checkpoints"):
        return _from_checkpoint(complete(folder / "checkpoints")[-1], parts)
    if complete(folder):  # the folder of the best checkpoint
        return _from_checkpoint(complete(folder)[-1], parts)
    if str(source) in names() and not (folder / "config.yaml").exists():  # a folder of images, perhaps; no run
        log.warning(
            "%s: the model of this name that comes with the package is meant; the folder here holds none", source
        )
        return _release(SHIPPED / str(source), parts)
    raise CheckpointError(f"{printable(folder)}: {EXPECTED}; {_found(folder)}")


def _doubt_age(run: Path, model: BigBiGAN) -> None:
    """Warn if a run has gone on since its release was written."""
    newest, of = complete(run / "checkpoints")[-1:], (model.card or {}).get("images_seen")
    if newest and type(of) is int and int(newest[0].name) > of:
        log.warning(
            "%s: its release is loaded, of %s images; the run has gone on to %s. It writes its release anew at its "
            "end; %s is the newest checkpoint",
            *(printable(run), f"{of:,}", f"{int(newest[0].name):,}", printable(newest[0])),
        )


def adopt_architecture(config: Config, checkpoints: Path, flags: Collection[str] = ()) -> BigBiGAN | None:
    """With --model.init_from, copy that model's architecture into the config and return the model.

    Returns None without the setting, and when the run resumes: then the architecture is that of its own checkpoint.
    flags: names "section.field" that the command line sets. Such a setting of the model is taken if the weights fit, or
    refused if it differs; what a preset or file sets is replaced.
    Raises CheckpointError, or ConfigError.
    """
    source = config.model.init_from
    if not source:
        return None
    for begun in reversed(complete(checkpoints)):
        try:
            model = load_model(begun)
        except CheckpointError:
            continue  # resuming reports the damage and tries the checkpoint before
        config.model = _adopted(model, config.model, flags, f"this run's checkpoint {begun}")
        return None
    model = load_model(source)
    if model.discriminator is None:
        raise CheckpointError(
            f"--model.init_from {source}: {absence('discriminator')}: it can be used, but not trained further; give a "
            "run folder, or a release that holds D (those that come with the package do not)"
        )
    config.model = _adopted(model, config.model, flags, f"--model.init_from {source}")
    config.validate()
    return model


def _adopted(model: BigBiGAN, asked: Model, flags: Collection[str], source: str) -> Model:
    """Return the settings of `model`, and of `asked` what the command line sets and the weights allow."""
    own = cast(Model, model.config)  # which every model that was loaded has
    wanted = [f.name for f in dataclasses.fields(Model) if f"model.{f.name}" in flags]
    free = _free_settings(own)
    found = {
        name: (_plain(own, name), _plain(dataclasses.replace(own, **{name: getattr(asked, name)}), name))
        for name in wanted
    }
    refused = [name for name in wanted if name not in free and found[name][0] != found[name][1]]
    if refused:
        sizes = " Larger images for E alone: --model.encoder_image_size." if "image_size" in refused else ""
        named = ", ".join(f"--model.{name} {_text(found[name][0])} (found {_text(found[name][1])})" for name in refused)
        raise ConfigError(
            f"{source}: its weights are of one architecture, so expected {named}; leave such a flag out, or train from "
            f"random weights without --model.init_from.{sizes}"
        )
    taken = {name: getattr(asked, name) for name in ("init_from", "checkpointing", *wanted) if name in free}
    adopted = dataclasses.replace(own, **taken)
    check_model(adopted)
    _check_fit(model, own, adopted, source)
    return adopted


def _free_settings(own: Model) -> set[str]:
    """Return the settings that a run may choose although it takes its weights from a model of the settings `own`.

    They say how the run computes, what z is drawn from, and at which resolution E, which is convolutional, sees images.
    """
    free = {"init_from", "checkpointing", "prior"}
    if own.encoder != "none":
        free |= {"encoder_image_size"}
    if takes_resnet_settings(own.encoder):
        free |= {"encoder_stem"}
    return free | ({"minibatch_group"} if own.family == "progressive" and own.minibatch == "stddev" else set())


def _plain(config: Model, name: str) -> object:
    """Return a setting as it is compared: a 0 that stands for a default as that default, a tuple as a list."""
    if name == "latent_dim":
        return resolve_latent_dim(config).latent_dim
    value = getattr(config, name)
    if name == "encoder_image_size":
        return value or config.image_size
    return list(value) if isinstance(value, tuple) else value


def _text(value: object) -> str:
    return (" ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _check_fit(model: BigBiGAN, own: Model, adopted: Model, source: str) -> None:
    """Raise ConfigError unless networks of the settings `adopted` take every weight of `model`, whose are `own`."""
    changed = [name for name in ("encoder_image_size", "encoder_stem") if _plain(own, name) != _plain(adopted, name)]
    if not changed:
        return
    try:
        with torch.random.fork_rng(devices=[]):
            encoder = cast(Encoder, build_encoder(adopted))
        check_weights(encoder.state_dict(), model.require("encoder").state_dict(), source)
    except ValueError as error:
        named = ", ".join(f"--model.{name} {_text(_plain(adopted, name))}" for name in changed)
        raise ConfigError(
            f"{named}: expected what the encoder's weights fit, found that they do not: {error}"
        ) from None


def _release(folder: Path, parts: Collection[str] | None) -> BigBiGAN:
    for file in ("config.json", "model.safetensors"):
        check_inside(folder / file, folder)
    model = read_release(folder / "config.json", folder / "model.safetensors", str(folder), parts)
    model.readme = read_card(folder / "README.md")
    return model


def _from_checkpoint(folder: Path, parts: Collection[str] | None) -> BigBiGAN:
    """Load averaged E and G, and D beside them, from the files of a checkpoint that hold what is asked for."""
    raw, averaged = FILES[:2]
    files = [raw] * (parts is None or "discriminator" in parts)
    files += [averaged] * (parts is None or bool({"encoder", "generator"} & set(parts)))
    try:
        content, tensors = read(folder, tuple(files))
    except CheckpointError as error:
        others = [other for other in complete(folder.parent) if other.name != folder.name]
        advice = f"; the run has another checkpoint, {printable(others[-1])}" if others else ""
        raise CheckpointError(f"{error}{advice}") from None
    section = {key.removeprefix("model."): v for key, v in content["config"].items() if key.startswith("model.")}
    places = dict.fromkeys(tensors.get(averaged, {}), folder / averaged)
    places |= {name: folder / raw for name in tensors.get(raw, {}) if name.startswith("discriminator.")}
    del tensors  # which map the files
    model = read_model(section, places, (f"{folder}/state.json", str(folder)), parts=parts)
    model.card = card(content["config"], content["images_seen"])
    return model


def card(config: dict[str, Any], images_seen: int) -> dict[str, Any]:
    """Return what a release says about itself: images seen, seed, name, data, and which scores D was trained on.

    config: the flat settings of a checkpoint; those that did not exist when it was written take their defaults, or what
    `EARLIER` says.
    """
    config = flatten(Config()) | EARLIER | config
    kept = (
        "path", "subset", "split", "test_split", "test_share", "image_column", "label_column", "augment", "flip",
        "follow_links", "value_range", "split_rule", "group_column",
    )  # fmt: skip
    data = {key: config[f"data.{key}"] for key in kept}
    loss = {key: config[f"loss.{key}"] for key in ("form", "unary_x", "unary_z")}
    return {
        "images_seen": images_seen, "seed": config["run.seed"], "name": config["run.name"], "data": data, "loss": loss
    }  # fmt: skip


def _found(folder: Path) -> str:
    """Return what is at a path that holds no model: the whole path, since it depends on the folder one is in."""
    where = printable(os.path.abspath(folder))
    if (folder / "config.yaml").is_file():
        return f"found a run without a checkpoint in {where}; the command that began it goes on"
    if folder.exists():
        return f"found none of these in {where}"
    name = folder.name if len(folder.parts) == 1 else ""  # a path is not mistaken for a name of the package's
    return f"no such folder as {where}; {_runs(folder)}; {known_names(name)}"


def _runs(asked: Path) -> str:
    """Return a phrase that names the runs below this folder, and asks for that whose name is most like `asked`."""
    runs = (p.parent for p in Path("runs").glob("*/config.yaml"))
    names = sorted(str(r) for r in runs if any(r.glob("checkpoints/*")) or (r / "release").is_dir())
    near = difflib.get_close_matches(str(asked), names, n=1)
    question = f"; did you mean {near[0]}?" if near else ""
    return f"runs here: {', '.join(names)}{question}" if names else "there are no runs here"
