"""Checks between settings: each error is one sentence that names the flags, what was expected and what was found.

Bounds of a single setting stand beside it in `schema`.
"""

import math
import numbers
from pathlib import PurePath
from typing import TYPE_CHECKING

from bigbigan.config.bounds import check_bounds
from bigbigan.errors import ConfigError

if TYPE_CHECKING:
    from bigbigan.config.schema import Config, Data, Model, Optim

AUGMENT_PARTS = {"none": (), "diffaugment": ("color", "translation", "cutout"), "ada": ("blit", "geom", "color")}
OWN_ENCODERS = ("progressive", "mlp")  # values of model.encoder that belong to the family of that name
RESNET_DEFAULTS = {  # settings of ResNet-v2, RevNet
    "encoder_width": 1.0, "encoder_blocks": (), "encoder_stem": "auto", "encoder_padding": "symmetric",
    "encoder_pool_padding": "symmetric", "encoder_shortcut": "preactivated", "encoder_last_relu": "auto",
}  # fmt: skip


def check(config: "Config", processes: int = 1) -> None:
    """Raise ConfigError for a setting out of its bounds, or for settings that contradict each other.

    processes: how many share a batch.
    """
    for section in ("data", "optim", "run", "loss", "grow"):
        check_bounds(section, getattr(config, section))
    check_model(config.model)
    check_value_range(config.data.value_range, "--data.value_range")
    _check_groups(config.data)
    _check_batches(config, processes)
    _check_run(config, processes)
    _check_growth(config)
    _check_family(config)
    _check_augmentation(config)
    _check_updates(config)
    _check_latent_regressor(config)
    _check_checkpointing(config)


def check_value_range(value_range: object, name: str) -> tuple[float, float] | None:
    """Return the values of black and white as two numbers; None if none are given. Raises ConfigError.

    value_range: nothing (None or an empty tuple), two numbers, or one, the value of white above a black of 0.
    name: the flag or argument, for the message.
    """
    if value_range is None or (isinstance(value_range, (tuple, list)) and not value_range):
        return None
    limits = list(value_range) if isinstance(value_range, (tuple, list)) else [value_range]
    limits = [0, *limits] if len(limits) == 1 else limits
    finite = all(isinstance(v, numbers.Real) and not isinstance(v, bool) and math.isfinite(v) for v in limits)
    if len(limits) != 2 or not finite or not limits[0] < limits[1]:
        raise ConfigError(
            f"{name} {value_range}: expected the values of black and of white, the smaller first, such as 0 4095"
        )
    return float(limits[0]), float(limits[1])


def check_model(m: "Model") -> None:
    """Raise ConfigError for networks that cannot be built; a release's config.json is checked by this too."""
    check_bounds("model", m)
    if m.encoder_image_size and m.encoder_image_size % m.image_size:
        raise ConfigError(
            f"--model.encoder_image_size {m.encoder_image_size}: expected a multiple of --model.image_size "
            f"{m.image_size}, since D sees E's image average-pooled"
        )
    if (m.prior == "uniform") != (m.posterior in ("tanh", "sigmoid")):
        raise ConfigError(
            f"--model.prior {m.prior} with --model.posterior {m.posterior}: "
            "expected the uniform prior together with the posterior tanh or sigmoid, or neither"
        )
    if not m.joint and (m.posterior in ("gaussian", "log_sigma") or m.encoder_image_size not in (0, m.image_size)):
        raise ConfigError(
            "--model.joint False: expected --model.posterior deterministic, tanh or sigmoid, and "
            "--model.encoder_image_size 0, since E learns to predict z from G(z)"
        )
    _check_model_family(m)


def _check_model_family(m: "Model") -> None:
    if m.encoder in OWN_ENCODERS and m.encoder != m.family:
        raise ConfigError(
            f"--model.family {m.family} with --model.encoder {m.encoder}: expected --model.family {m.encoder}, "
            "or another encoder"
        )
    if m.family in OWN_ENCODERS and m.classes:
        raise ConfigError(f"--model.family {m.family}: expected --model.classes 0, found {m.classes}")
    own_size = m.family == "progressive" or m.encoder == "mlp"  # E sees images of G's size
    if own_size and m.encoder_image_size not in (0, m.image_size):
        raise ConfigError(
            f"--model.family {m.family} with --model.encoder {m.encoder}: expected E's images at G's size "
            f"and --model.encoder_image_size 0, found {m.encoder_image_size}"
        )
    if m.discriminator_norm not in (("batch", "none") if m.family == "mlp" else ("none", "layer", "spectral")):
        raise ConfigError(
            f"--model.discriminator_norm {m.discriminator_norm}: expected batch or none for --model.family mlp, and "
            f"not batch for another; found {m.family}"
        )
    if m.grey and m.family == "progressive":
        raise ConfigError("--model.grey True: expected --model.family biggan or mlp, found progressive")


def _check_checkpointing(config: "Config") -> None:
    m, compile_mode = config.model, config.run.compile
    if m.checkpointing and m.family != "biggan" and m.encoder in (*OWN_ENCODERS, "none"):
        raise ConfigError(
            f"--model.checkpointing True: expected --model.family biggan, or an encoder of timm; family {m.family} "
            "keeps its activations"
        )
    if m.checkpointing and compile_mode != "off":
        raise ConfigError(
            f"--model.checkpointing True with --run.compile {compile_mode}: expected one of the two; the compiler "
            "chooses itself what to compute again"
        )


def takes_resnet_settings(encoder: str) -> bool:
    """Return whether a value of model.encoder has a width, numbers of blocks and a stem to choose."""
    return "resnetv2" in encoder or encoder == "revnet50"


def augment_parts(optim: "Optim") -> tuple[str, ...]:
    """Return the parts of optim.augment that optim.augment_policy names, all of them if it is empty.

    Raises ConfigError for a name that is none of them.
    """
    known = AUGMENT_PARTS[optim.augment]
    chosen = tuple(part.strip() for part in optim.augment_policy.split(",") if part.strip())
    if set(chosen) - set(known):
        expected = f"some of {', '.join(known)}" if known else "none without --optim.augment diffaugment or ada"
        raise ConfigError(
            f"--optim.augment_policy {optim.augment_policy}: expected {expected}, for --optim.augment {optim.augment}"
        )
    return chosen or known


def check_path(path: str, preset: str) -> None:
    """Raise ConfigError if a preset, or file, leaves --data.path to be given, and it was not given.

    Such a preset says `path: ""`.  preset: as --config names it.
    """
    if not path:
        raise ConfigError(
            f"--config {preset}: expected --data.path too, your images: a folder, Parquet or Arrow files, or a hub "
            "data set; found none. For example: "
            f"bigbigan-train --config {preset} --data.path FOLDER"
        )


def _check_batches(config: "Config", processes: int) -> None:
    if config.run.choose_settings:  # a batch that is still to be chosen is checked when it has been
        return
    d, sizes = config.data, config.grow.batch_sizes
    for flag, size in [("data.batch_size", d.batch_size), *(("grow.batch_sizes", size) for size in sizes)]:
        if size % (processes * d.chunks) or size < 2:
            raise ConfigError(
                f"--{flag} {size}: expected a multiple of processes × chunks = {processes} × {d.chunks}, at least 2; "
                f"change it or --data.chunks"
            )
        if size < 2 * d.chunks:
            raise ConfigError(
                f"--data.chunks {d.chunks}: expected at most {size // 2}, so that a chunk has two of the {size} images "
                "of --data.batch_size or more, of which the batch norms take their statistics"
            )


def _check_groups(d: "Data") -> None:
    if d.group_column and d.split_rule != "patient":
        raise ConfigError(
            f"--data.group_column {d.group_column}: expected --data.split_rule patient, which holds out whole groups, "
            f"found {d.split_rule}"
        )


def _check_run(config: "Config", processes: int) -> None:
    r = config.run
    if PurePath(r.name).is_absolute() or ".." in PurePath(r.name).parts:
        raise ConfigError(f"--run.name {r.name}: expected a folder's name under --run.root, found a way out of it")
    if r.best and not r.evaluate_every:
        raise ConfigError(
            f"--run.best {r.best}: expected --run.evaluate_every too, the number of images between evaluations"
        )
    if r.best and not r.selection_share:
        raise ConfigError(
            f"--run.best {r.best} with --run.selection_share 0: expected a share of the training images above 0, such "
            "as 0.1, that is held out to choose with; test images must not choose"
        )
    if r.on_collapse != "alarm" and not r.spectra_every:
        raise ConfigError(
            f"--run.on_collapse {r.on_collapse}: expected --run.spectra_every too, the number of images between checks"
        )
    if r.statistics_images < 2 * processes:
        raise ConfigError(
            f"--run.statistics_images {r.statistics_images}: expected at least two for each of {processes} processes"
        )


def _check_growth(config: "Config") -> None:
    m, g = config.model, config.grow
    if not g.first_size:
        return
    if m.family != "progressive":
        raise ConfigError(f"--grow.first_size {g.first_size}: expected --model.family progressive, found {m.family}")
    if m.encoder not in ("progressive", "none"):
        raise ConfigError(
            f"--model.encoder {m.encoder} with --grow.first_size {g.first_size}: expected --model.encoder progressive, "
            "the only one that grows; or add --grow.first_size 0 to train at full size from the start"
        )
    if not g.hold_images + g.fade_images:
        raise ConfigError(
            "--grow.hold_images, --grow.fade_images: expected numbers of images, not both 0 for a run that grows"
        )
    if config.run.compile != "off":
        raise ConfigError(f"--run.compile {config.run.compile}: expected off for a run that grows, whose graph changes")


def _check_family(config: "Config") -> None:
    """Raise ConfigError for an objective or regulariser that the family's D has no part for."""
    m, o, loss = config.model, config.optim, config.loss
    progressive = m.family == "progressive"
    if loss.form == "lsgan" and not progressive:
        raise ConfigError("--loss.form lsgan: expected --model.family progressive, whose D takes its noise")
    if (m.encoder == "none" or not m.joint) and loss.unary_x is False:
        raise ConfigError(
            "--model.encoder none or --model.joint False: expected --loss.unary_x True, the only score of a GAN"
        )
    if m.family != "biggan" and o.dropout:
        raise ConfigError(f"--optim.dropout {o.dropout}: expected 0 for --model.family {m.family}, whose D has none")
    if loss.r1 and progressive and m.minibatch != "none":
        raise ConfigError(
            f"--loss.r1 {loss.r1}: expected --model.minibatch none, since R1 needs scores that depend on one pair alone"
        )
    if m.discriminator_norm == "batch" and (loss.r1 or loss.form == "wgan_gp"):
        raise ConfigError(
            "--model.discriminator_norm batch: expected --loss.r1 0 and no wgan_gp, which need scores that depend on "
            "one pair alone"
        )
    spectral = m.family == "biggan" or m.discriminator_norm == "spectral"
    if loss.form == "wgan_gp" and spectral and m.joint and m.encoder != "none":
        raise ConfigError(
            "--loss.form wgan_gp: expected a D without spectral norm (--model.family progressive "
            "--model.discriminator_norm none), found one with it, where E learns to ignore the image "
            "(docs/progressive.md); or take --loss.form hinge"
        )


def _check_augmentation(config: "Config") -> None:
    o, form = config.optim, config.loss.form
    augment_parts(o)
    if o.augment == "ada" and form in ("wgan_gp", "lsgan"):
        raise ConfigError(
            f"--optim.augment ada with --loss.form {form}: expected hinge, joint_hinge or logistic, whose scores' "
            "signs say what D takes for real; use diffaugment"
        )


def _check_updates(config: "Config") -> None:
    o = config.optim
    if o.simultaneous and o.d_steps != 1:
        raise ConfigError(
            f"--optim.simultaneous True with --optim.d_steps {o.d_steps}: expected 1, both updates are of one batch"
        )
    if o.sigma_clamp and o.sigma_clamp_ratio:
        raise ConfigError(
            f"--optim.sigma_clamp {o.sigma_clamp} with --optim.sigma_clamp_ratio {o.sigma_clamp_ratio}: "
            "expected one of the two"
        )
    if o.lower_images and not (o.lower_after and o.lower_factor):
        raise ConfigError(
            f"--optim.lower_images {o.lower_images}: expected --optim.lower_after and --optim.lower_factor above 0"
        )


def _check_latent_regressor(config: "Config") -> None:
    m, o, loss = config.model, config.optim, config.loss
    if loss.latent_weight and (m.joint or m.encoder == "none"):
        raise ConfigError(f"--loss.latent_weight {loss.latent_weight}: expected --model.joint False, and an encoder")
    if not m.joint and m.encoder != "none" and o.augment != "none":
        raise ConfigError(
            f"--optim.augment {o.augment}: expected none with --model.joint False, whose E sees G's images as D does"
        )
