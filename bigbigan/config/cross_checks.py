"""What settings cannot be, each by itself and together: one sentence that names the flag."""

import math
import numbers
from dataclasses import fields
from pathlib import PurePath
from typing import TYPE_CHECKING

from bigbigan.errors import ConfigError
from bigbigan.files import printable

if TYPE_CHECKING:
    from bigbigan.config.schema import Config, Model, Optim

WIDEST, DEEPEST = 65_536, 1_000  # units or pixels, and layers, above which a number is a slip of the hand or an attack
AUGMENT_PARTS = {"none": (), "diffaugment": ("color", "translation", "cutout"), "ada": ("blit", "geom", "color")}


def check(config: "Config", processes: int = 1) -> None:
    """Raise ConfigError for settings that contradict each other, naming the flags."""
    m, d, o, r, loss = config.model, config.data, config.optim, config.run, config.loss
    at_least = [
        ("data.batch_size", d.batch_size, 2), ("data.chunks", d.chunks, 1), ("optim.d_steps", o.d_steps, 1),
        ("run.images", r.images, 1), ("run.log_every", r.log_every, 1), ("run.sample_every", r.sample_every, 1),
        ("run.checkpoint_every", r.checkpoint_every, 1), ("run.keep_checkpoints", r.keep_checkpoints, 1),
        ("run.grid", r.grid, 1),
        ("run.evaluate_every", r.evaluate_every, 0), ("run.evaluate_images", r.evaluate_images, 20),
        ("run.statistics_images", r.statistics_images, 2), ("run.seed", r.seed, 0), ("run.threads", r.threads, 0),
        ("data.workers", d.workers, -1),
        ("run.spectra_every", r.spectra_every, 0), ("run.recoveries", r.recoveries, 0),
        ("optim.lower_after", o.lower_after, 0), ("loss.r1_interval", loss.r1_interval, 1),
        ("optim.lr_rampup", o.lr_rampup, 0), ("optim.ada_images", o.ada_images, 1), ("optim.lower_images", o.lower_images, 0),
        ("loss.penalty", loss.penalty, 0), ("loss.drift", loss.drift, 0),
    ]  # fmt: skip
    for flag, value, least in at_least:
        if value < least:
            raise ConfigError(f"--{flag} {value}: expected at least {least}")
    if r.seed >= 2**63:
        raise ConfigError(f"--run.seed {r.seed}: expected less than 2^63")
    for name in ("model", "loss", "optim", "data", "grow", "run"):
        _check_values(name, getattr(config, name))
    if PurePath(r.name).is_absolute() or ".." in PurePath(r.name).parts:
        raise ConfigError(f"--run.name {r.name}: expected a folder's name under --run.root, found a way out of it")
    check_model(m)
    for flag, size in [
        ("data.batch_size", d.batch_size),
        *(("grow.batch_sizes", size) for size in config.grow.batch_sizes),
    ]:
        if size % (processes * d.chunks) or size < 2:
            raise ConfigError(
                f"--{flag} {size}: expected a multiple of processes × chunks = {processes} × {d.chunks}, at least 2; "
                f"change it or --data.chunks"
            )
    check_growth(config)
    check_augmentation(config)
    check_originals(config)
    if r.best and not r.evaluate_every:
        raise ConfigError(
            f"--run.best {r.best}: expected --run.evaluate_every too, the number of images between evaluations"
        )
    for name in ("generator_lr", "discriminator_lr", "encoder_lr", "ema_half_life", "ema_rampup"):
        if not getattr(o, name) > 0:
            raise ConfigError(f"--optim.{name} {getattr(o, name)}: expected a number above 0")
    shares = [("optim.lower_factor", o.lower_factor), ("optim.dropout", o.dropout)]
    for flag, value in shares:
        if not 0 <= value < 1:
            raise ConfigError(f"--{flag} {value}: expected a number from 0 to below 1")
    strengths = [
        ("loss.r1", loss.r1), ("loss.latent_weight", loss.latent_weight), ("optim.weight_decay", o.weight_decay),
        ("optim.sigma_clamp", o.sigma_clamp), ("optim.sigma_clamp_ratio", o.sigma_clamp_ratio)
    ]  # fmt: skip
    for flag, value in strengths:
        if not 0 <= value < math.inf:
            raise ConfigError(f"--{flag} {value}: expected a number above 0, or 0 for none")
    if o.sigma_clamp and o.sigma_clamp_ratio:
        raise ConfigError(
            f"--optim.sigma_clamp {o.sigma_clamp} with --optim.sigma_clamp_ratio {o.sigma_clamp_ratio}: expected one of the two"
        )
    if r.on_collapse != "alarm" and not r.spectra_every:
        raise ConfigError(
            f"--run.on_collapse {r.on_collapse}: expected --run.spectra_every too, the number of images between the looks"
        )
    if not r.stop_after >= 0:
        raise ConfigError(f"--run.stop_after {r.stop_after}: expected minutes, or 0 for never")
    if not r.timeout > 0:
        raise ConfigError(f"--run.timeout {r.timeout}: expected minutes above 0")
    if not 0 < d.test_share < 1:
        raise ConfigError(f"--data.test_share {d.test_share}: expected a share between 0 and 1")
    check_value_range(d.value_range, "--data.value_range")
    if r.statistics_images < 2 * processes:
        raise ConfigError(
            f"--run.statistics_images {r.statistics_images}: expected at least two for each of {processes} processes"
        )
    if not loss.orthogonal >= 0:
        raise ConfigError(f"--loss.orthogonal {loss.orthogonal}: expected 0 or more")
    if not all(0 <= beta < 1 for beta in o.betas):
        raise ConfigError(f"--optim.betas {o.betas}: expected two numbers in [0, 1)")


def check_value_range(value_range: object, name: str) -> tuple[float, float] | None:
    """Return the values of black and white as two numbers; None if none are given. Raises ConfigError.

    value_range: nothing (None or an empty tuple), two numbers, or one, the value of white above a black of 0.
    name: the flag or argument, for the message.
    """
    if value_range is None or (isinstance(value_range, (tuple, list)) and not value_range):
        return None
    limits = list(value_range) if isinstance(value_range, (tuple, list)) else [value_range]
    limits = [0, *limits] if len(limits) == 1 else limits
    finite = all(isinstance(v, numbers.Real) and math.isfinite(v) for v in limits)
    if len(limits) != 2 or not finite or not limits[0] < limits[1]:
        raise ConfigError(
            f"{name} {value_range}: expected the values of black and of white, the smaller first, such as 0 4095"
        )
    return float(limits[0]), float(limits[1])


def check_growth(config: "Config") -> None:
    """Raise ConfigError for a schedule, or an objective, that the networks cannot follow."""
    m, g, o, loss = config.model, config.grow, config.optim, config.loss
    progressive = m.family == "progressive"
    if g.first_size and not progressive:
        raise ConfigError(f"--grow.first_size {g.first_size}: expected --model.family progressive, found {m.family}")
    if min(g.first_size, g.hold_images, g.fade_images) < 0 or (g.first_size and not g.hold_images + g.fade_images):
        raise ConfigError(
            "--grow.hold_images, --grow.fade_images: expected numbers of images, not both 0 for a run that grows"
        )
    if not loss.gradient_norm > 0:
        raise ConfigError(f"--loss.gradient_norm {loss.gradient_norm}: expected a number above 0")
    if loss.form == "lsgan" and not progressive:
        raise ConfigError("--loss.form lsgan: expected --model.family progressive, whose D takes its noise")
    if (m.encoder == "none" or not m.joint) and loss.unary_x is False:
        raise ConfigError(
            "--model.encoder none or --model.joint False: expected --loss.unary_x True, the only score of a GAN"
        )
    if m.family != "biggan" and o.dropout:
        raise ConfigError(f"--optim.dropout {o.dropout}: expected 0 for --model.family {m.family}, whose D has none")
    if g.first_size and config.run.compile != "off":
        raise ConfigError(f"--run.compile {config.run.compile}: expected off for a run that grows, whose graph changes")
    if loss.r1 and progressive and m.minibatch != "none":
        raise ConfigError(
            f"--loss.r1 {loss.r1}: expected --model.minibatch none, since R1 wants scores of a pair alone"
        )


def check_augmentation(config: "Config") -> None:
    """Raise ConfigError for an augmentation of what F sees that there is not, or that its objective cannot steer."""
    o, form = config.optim, config.loss.form
    augment_parts(o)
    if o.augment == "ada" and form in ("wgan_gp", "lsgan"):
        raise ConfigError(
            f"--optim.augment ada with --loss.form {form}: expected hinge, joint_hinge or logistic, whose scores' signs say what D "
            "takes for real; use diffaugment"
        )
    if not -1 < o.ada_target < 1:
        raise ConfigError(f"--optim.ada_target {o.ada_target}: expected a mean of signs, between -1 and 1")


def augment_parts(optim: "Optim") -> tuple[str, ...]:
    """The parts of the policy of what F sees, all if none is named. Raises ConfigError."""
    known = AUGMENT_PARTS[optim.augment]
    chosen = tuple(part.strip() for part in optim.augment_policy.split(",") if part.strip())
    if set(chosen) - set(known):
        expected = f"some of {', '.join(known)}" if known else "none without --optim.augment diffaugment or ada"
        raise ConfigError(
            f"--optim.augment_policy {optim.augment_policy}: expected {expected}, for --optim.augment {optim.augment}"
        )
    return chosen or known


def check_originals(config: "Config") -> None:
    """Raise ConfigError for updates and objectives of BiGAN and ALI that do not fit the rest."""
    m, o, loss = config.model, config.optim, config.loss
    if o.simultaneous and o.d_steps != 1:
        raise ConfigError(
            f"--optim.simultaneous True with --optim.d_steps {o.d_steps}: expected 1, both updates are of one batch"
        )
    if loss.latent_weight and (m.joint or m.encoder == "none"):
        raise ConfigError(f"--loss.latent_weight {loss.latent_weight}: expected --model.joint False, and an encoder")
    if not m.joint and m.encoder != "none" and o.augment != "none":
        raise ConfigError(
            f"--optim.augment {o.augment}: expected none with --model.joint False, whose E sees G's images as D does"
        )
    if m.discriminator_norm == "batch" and (loss.r1 or loss.form == "wgan_gp"):
        raise ConfigError(
            "--model.discriminator_norm batch: expected --loss.r1 0 and no wgan_gp, which want scores of a pair alone"
        )
    if o.lower_images and not (o.lower_after and o.lower_factor):
        raise ConfigError(
            f"--optim.lower_images {o.lower_images}: expected --optim.lower_after and --optim.lower_factor above 0"
        )


def check_model(m: "Model") -> None:
    """Raise ConfigError for networks that cannot be, before anything is built: also asked of a release's
    config.json."""
    _check_values("model", m)
    zero = (
        "latent_dim",
        "classes",
        "generator_attention",
        "discriminator_attention",
        "encoder_image_size",
        "minibatch_group",
    )
    least = dict.fromkeys(zero, 0)
    for name in (f.name for f in fields(m) if type(getattr(m, f.name)) is int and not f.name.endswith("layers")):
        if not least.get(name, 1) <= getattr(m, name) <= WIDEST:
            raise ConfigError(f"--model.{name} {getattr(m, name)}: expected from {least.get(name, 1)} to {WIDEST:,}")
    for name in ("mlp_layers", "encoder_mlp_layers"):
        if not 2 <= getattr(m, name) <= DEEPEST or getattr(m, name) % 2:
            raise ConfigError(f"--model.{name} {getattr(m, name)}: expected an even number from 2 to {DEEPEST:,}")
    if not 0 < m.encoder_width <= 64:
        raise ConfigError(f"--model.encoder_width {m.encoder_width}: expected a multiple above 0, of at most 64")
    if m.encoder_blocks and (len(m.encoder_blocks) != 4 or not all(1 <= n <= DEEPEST for n in m.encoder_blocks)):
        raise ConfigError(
            f"--model.encoder_blocks {m.encoder_blocks}: expected four numbers of blocks from 1 to {DEEPEST:,}, or none"
        )
    if m.encoder_image_size and m.encoder_image_size % m.image_size:
        raise ConfigError(
            f"--model.encoder_image_size {m.encoder_image_size}: expected a multiple of --model.image_size {m.image_size}, "
            "since D sees E's image average-pooled"
        )
    own = ("progressive", "mlp")  # families with an encoder of their own
    if (m.family in own or m.encoder in own) and m.encoder not in (m.family, "none"):
        raise ConfigError(
            f"--model.family {m.family} with --model.encoder {m.encoder}: expected both progressive or neither, "
            "or no encoder; and so with mlp"
        )
    if m.family in own and (m.classes or m.encoder_image_size not in (0, m.image_size)):
        raise ConfigError(f"--model.family {m.family}: expected --model.classes 0, and --model.encoder_image_size 0")
    if m.discriminator_norm not in (("batch", "none") if m.family == "mlp" else ("none", "layer", "spectral")):
        raise ConfigError(
            f"--model.discriminator_norm {m.discriminator_norm}: expected batch or none for --model.family mlp, and not batch for "
            f"another; found {m.family}"
        )
    if m.grey and m.family != "mlp":
        raise ConfigError(f"--model.grey True: expected --model.family mlp, found {m.family}")
    if not m.joint and (m.posterior in ("gaussian", "log_sigma") or m.encoder_image_size not in (0, m.image_size)):
        raise ConfigError(
            "--model.joint False: expected --model.posterior deterministic or tanh, and --model.encoder_image_size 0, "
            "since E learns to tell z from G(z)"
        )
    if not m.generator_slope >= 0:
        raise ConfigError(f"--model.generator_slope {m.generator_slope}: expected 0 or more")
    if (m.prior == "uniform") != (m.posterior == "tanh"):
        raise ConfigError(
            f"--model.prior {m.prior} with --model.posterior {m.posterior}: "
            "expected the uniform prior and the tanh posterior together, or neither"
        )


def _check_values(section: str, values: object) -> None:
    """Numbers must be finite, and texts such that files and folders can bear them."""
    for f in fields(values):
        value = getattr(values, f.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, float) and not math.isfinite(part):
                raise ConfigError(f"--{section}.{f.name} {part}: expected a finite number")
            if isinstance(part, str) and printable(part) != part:
                raise ConfigError(
                    f"--{section}.{f.name} {printable(part)!r}: expected text that can be printed; choose another name"
                )
