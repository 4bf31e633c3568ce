"""What training asks of G and D beside their forward, with the answers that most networks give.

A generator or discriminator of your own inherits from the class here (and from `nn.Module`), sets `image_size` and
`latent_dim`, and overrides what differs. E is `Encoder` around any trunk, a network (N, 3, S, S) → (N, num_features).
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from bigbigan.losses import Scores


class GeneratorInterface:
    """G.  forward: z (N, latent_dim), classes (N,) or None → images (N, 3, S, S) in [−1, 1], S = image_size."""

    image_size: int
    latent_dim: int
    classes: int = 0
    """Number of classes that it is conditioned on; 0 for an unconditional one."""

    def prepare(self, x: Tensor) -> Tensor:
        """Return real images (N, 3, S, S) as D and E see them beside this G's; networks that grow override this."""
        return x

    def latent_weights(self) -> list[tuple[slice, Tensor]]:
        """Return the weights by which G's layers take z in: a list of (part of z, weights (outputs, part's size)).

        Weights are as the forward applies them, after spectral norm or equalised rates. Layers that see the same part
        of z are stacked. `bigbigan.uses.directions.sefa` factorises them; nothing else needs them.
        """
        raise NotImplementedError(f"{type(self).__name__}.latent_weights")


class AnyGenerator(Protocol):
    """What the rest of the library asks of any G, for type checkers."""

    image_size: int
    latent_dim: int

    def __call__(self, z: Tensor, classes: Tensor | None = None) -> Tensor: ...


class AnyDiscriminator(Protocol):
    """What the rest of the library asks of any D, for type checkers."""

    image_size: int
    latent_dim: int

    def __call__(self, x: Tensor, z: Tensor | None = None, classes: Tensor | None = None) -> Scores: ...

    def score_layers(self) -> dict[str, nn.Module]: ...


class DiscriminatorInterface:
    """D.  forward: x (N, 3, S, S), z (N, latent_dim), classes (N,), noise; each but x may be None → Scores, (N,)
    each."""

    image_size: int
    latent_dim: int
    classes: int = 0
    joint: bool = True
    """Whether it sees latents too; False for a GAN's D, which has score x alone."""
    compares_images: bool = False
    """Whether an image's score depends on the other images of its batch, so that real and generated ones go apart."""
    last_features: int = 0
    """Width of the features before its scores, where dropout may act; 0 if it takes none."""
    noise_width: int = 0
    """Normal random numbers that it takes for each image (LSGAN's multiplicative noise); 0 for none."""

    def score_layers(self) -> dict[str, nn.Module]:
        """Return the last layer of each score that forward computes, by "x", "z" or "xz"; {} if it is not known.

        What these layers see are D's penultimate features, see `scores_and_features`. A network of your own names its
        layers here if its features are wanted.
        """
        return {}


def scores_and_features(
    discriminator: AnyDiscriminator, x: Tensor, z: Tensor | None, classes: Tensor | None
) -> tuple[Scores, dict[str, Tensor]]:
    """Return D's scores, and by "x", "z" and "xz" what the last layer of each score saw, (N, width) each.

    x, z, classes: as D's forward takes them. The forward is the one without features, so the scores are the same bits.
    """
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, inputs: seen.update({name: inputs[0]})

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in discriminator.score_layers().items()]
    try:
        scores = discriminator(x, z, classes)
    finally:
        for hook in hooks:
            hook.remove()
    return scores, seen
