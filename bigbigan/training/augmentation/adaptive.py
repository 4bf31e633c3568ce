"""What F sees of small data: DiffAugment, or ADA, whose probability follows how much D overfits.

Zhao et al. 2020 (2006.10738); Karras et al. 2020 (2006.06676), section 3.
"""

from math import isfinite

import torch
from torch import Tensor

from bigbigan.config import Config, augment_parts
from bigbigan.distributed import world_size
from bigbigan.losses import Scores
from bigbigan.networks.layers.spectral import full_precision
from bigbigan.training.augmentation.policies import ADA_NUMBERS, DIFFAUGMENT_NUMBERS, ada, diffaugment
from bigbigan.training.batch import Batch
from bigbigan.training.part import Draw, Part, pair_uniforms

INTERVAL = 4  # D updates from one change of p to the next


class DiscriminatorAugmentation(Part):
    """Transforms what F sees: the images of both kinds of pairs, by one distribution; E sees its images as they are.

    method: "diffaugment" or "ada".  parts: of its policy.  form: of the loss.
    target, images: of ADA, whose probability p rises while the mean sign of D's scores of real images is above the
    target, and falls below it, at a speed that takes it from 0 to 1 in so many images. `p`, and what it is computed
    from, is state of the run.
    """

    def __init__(
        self,
        method: str,
        parts: tuple[str, ...],
        *,
        target: float = 0.6,
        images: int = 500_000,
        form: str = "hinge",
        device: torch.device | str = "cpu",
    ):
        self.method, self.parts, self.target, self.images, self.form = method, parts, target, images, form
        self.adaptive = method == "ada"
        self.width = {"diffaugment": DIFFAUGMENT_NUMBERS, "ada": ADA_NUMBERS}[method]
        # on the device, which the host need not wait for: p, and since its last change the sum of signs and their
        # number
        self.p, self.signs, self.seen = (torch.zeros(1, device=device) for _ in range(3))
        self.updates = 0  # since p's last change

    @classmethod
    def from_config(cls, config: Config, device: torch.device | str = "cpu") -> "DiscriminatorAugmentation":
        """Build what `optim.augment` names, which must not be "none"."""
        o = config.optim
        settings = {"target": o.ada_target, "images": o.ada_images, "form": config.loss.form, "device": device}
        return cls(o.augment, augment_parts(o), **settings)

    def draws(self) -> dict[str, Draw]:
        """Draw (n, 2, width) ~ U(0, 1): from which the transforms of an image's two pairs are made."""
        return {"augment": lambda seed, places, suffix: pair_uniforms(seed, f"augment{suffix}", places, self.width)}

    def show(self, images: Tensor, batch: Batch) -> Tensor:
        """Return the images (2n, 3, S, S), encoder pairs first, transformed."""
        if "augment" not in batch.extra:
            raise ValueError(
                f"{self.method}: expected {self.width} numbers for each image and pair, found none in the batch"
            )
        numbers = torch.cat([batch.extra["augment"][:, 0], batch.extra["augment"][:, 1]])
        with full_precision(images.device.type):
            if self.adaptive:
                images = ada(images, numbers, self.p, self.parts)
            else:
                images = diffaugment(images, numbers, self.parts)
        return images.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def report(self, encoder_pairs: Scores, generator_pairs: Scores, batch: Batch) -> dict[str, Tensor]:
        """Report the mean sign of D's opinion of real images, in [−1, 1], for ADA.

        The opinion is s_x, which the hinge per score trains as a score of its own and which depends on the image alone;
        the summed score where there is no such term.
        """
        if not self.adaptive:
            return {}
        own_score = self.form == "hinge" and encoder_pairs.x is not None
        return {"augment_sign": (encoder_pairs.x if own_score else encoder_pairs.total()).sign().mean()}

    @torch.no_grad()
    def after(self, values: dict[str, Tensor], broken: Tensor, images: int) -> dict[str, Tensor]:
        """Move p after every fourth D update of ADA, and report it as "augment_p"."""
        if not self.adaptive:
            return {}
        well = broken == 0
        self.signs += torch.where(well, values["augment_sign"] * images * world_size(), 0)
        self.seen += torch.where(well, images * world_size(), 0)
        self.updates += 1
        if self.updates == INTERVAL:
            excess = (self.signs - self.target * self.seen).sign()
            self.p.add_(excess * self.seen / self.images).clamp_(0, 1)
            self.signs.zero_()
            self.seen.zero_()
            self.updates = 0
        return {"augment_p": self.p[0].clone()}

    def state(self) -> dict[str, float]:
        """Return what a checkpoint keeps, as numbers that JSON keeps exactly; {} for DiffAugment."""
        if not self.adaptive:
            return {}
        return {"p": self.p.item(), "signs": self.signs.item(), "seen": self.seen.item(), "updates": self.updates}

    def load(self, state: dict) -> None:
        """Take up a `state`, or {} for the beginning. Raises ValueError for what cannot be one."""
        if not self.adaptive:
            return
        found = {"p": 0.0, "signs": 0.0, "seen": 0.0, "updates": 0} | (
            state if isinstance(state, dict) else {"": state}
        )
        sound = len(found) == 4 and all(type(v) in (int, float) and isfinite(v) for v in found.values())
        if not sound or not 0 <= found["p"] <= 1 or found["updates"] not in range(INTERVAL):
            raise ValueError(
                f"augmentation: expected p in [0, 1], signs, seen and updates below {INTERVAL}, found {state!r}"
            )
        for name in ("p", "signs", "seen"):
            getattr(self, name).fill_(found[name])
        self.updates = int(found["updates"])
