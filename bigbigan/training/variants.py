"""Which variant a run is: `build_step` reads the settings once and puts the step together from its parts.

A new penalty or regulariser is a `Part` here, a setting in `config/schema.py`, and a line in `build_step`.
"""

from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigbigan.config import Config
from bigbigan.losses import r1_penalty
from bigbigan.model import BigBiGAN
from bigbigan.noise import dropout_factors
from bigbigan.training.augmentation import DiscriminatorAugmentation
from bigbigan.training.batch import Batch
from bigbigan.training.objectives import LSGAN, WGANGP, Joint, LatentRegressor, Objective
from bigbigan.training.optim import Optimizers, Regularisation
from bigbigan.training.part import Draw, Part, Penalty
from bigbigan.training.side_by_side import SideBySideStep, can_go_side_by_side
from bigbigan.training.simultaneous import SimultaneousStep
from bigbigan.training.step import Pairs, Step


class R1(Part):
    """γ/2 · E‖∇D(x, E(x))‖² in D's loss, in every `interval`-th D update and as many times as strong (Mescheder et al.
    2018)."""

    def __init__(self, strength: float, interval: int = 1):
        self.strength, self.interval = strength, interval

    def penalties(self, step: Step, pairs: Pairs, batch: Batch, number: int) -> list[Penalty]:
        """Return the penalty at the encoder pairs, in the precision of the weights."""
        if number % self.interval:
            return []
        images, latents, *rest = pairs.halves()[0]
        inputs = [t.detach().to(pairs.images).requires_grad_() for t in (images, latents) if t is not None]
        with sdpa_kernel(SDPBackend.MATH):  # the one attention that has second derivatives
            scores = step.model.discriminator(*inputs, *([None] * (latents is None)), *rest)
            penalty = r1_penalty(step.objective.select(scores), inputs)
        return [Penalty("r1", self.strength / 2 * self.interval * penalty, times=self.interval)]


class Dropout(Part):
    """Zeros in D's last features before the scores, with probability `share` (BigGAN, section 4.2)."""

    def __init__(self, share: float, width: int):
        self.share, self.width = share, width

    def draws(self) -> dict[str, Draw]:
        """Draw (n, 2, width) factors, 0 or 1/(1 − share), for the two pairs of an image."""

        def draw(seed, places, suffix):
            return dropout_factors(seed, places, self.width, self.share, f"dropout{suffix}")

        return {"dropout": draw}

    def noise(self, batch: Batch) -> Tensor | None:
        """Return what `draws` drew."""
        return batch.extra.get("dropout")


def build_step(config: Config, model: BigBiGAN, optimizers: Optimizers, autocast) -> Step:
    """Return the step that the settings describe. autocast: returns a context for the forwards (Accelerate's)."""
    o, loss = config.optim, config.loss
    parts: list[Part] = []
    if loss.r1:
        parts.append(R1(loss.r1, loss.r1_interval))
    if o.augment != "none":
        parts.append(DiscriminatorAugmentation.from_config(config, next(model.parameters()).device))
    if o.dropout:
        parts.append(Dropout(o.dropout, model.discriminator.last_features))
    objective = build_objective(config, model)
    apart = can_go_side_by_side(config, model, tuple(parts), objective)
    kind = SimultaneousStep if o.simultaneous else SideBySideStep if apart else Step
    return kind(
        model,
        optimizers,
        objective,
        parts=tuple(parts),
        coupling=Joint() if config.model.joint or model.encoder is None else LatentRegressor(loss.latent_weight),
        d_steps=o.d_steps,
        batches=config.batches,
        chunks=config.data.chunks,
        autocast=autocast,
        regularisation=Regularisation.from_config(config),
    )


def build_objective(config: Config, model: BigBiGAN) -> Objective:
    """Return the objective of `loss.form`."""
    loss = config.loss
    if loss.form == "wgan_gp":
        return WGANGP(loss.unary_x, loss.unary_z, loss.penalty, loss.gradient_norm, loss.drift)
    if loss.form == "lsgan":
        return LSGAN(model.discriminator, loss.unary_x, loss.unary_z)
    return Objective(loss.form, loss.unary_x, loss.unary_z)


def augmentation_of(step: Step) -> DiscriminatorAugmentation | None:
    """Return the step's augmentation of what F sees, whose state is part of a checkpoint; None if there is none."""
    return next((part for part in step.parts if isinstance(part, DiscriminatorAugmentation)), None)
