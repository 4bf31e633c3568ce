"""Signs of collapse, looked for at an interval (BigGAN, section 4).

They are spectra of the weights, scores, D on held-out images, and diversity of samples.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bigbigan.config import Config
from bigbigan.data import Images, evaluation_batches, spread, to_signed
from bigbigan.distributed import all_reduce, barrier, local_only, rank
from bigbigan.errors import DataError, TrainingFailure
from bigbigan.latents import sample_prior
from bigbigan.losses import inverted_gap
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import pool_to
from bigbigan.training import checkpoint
from bigbigan.training.guard.recovery import RecoveryPolicy
from bigbigan.training.guard.spectra import spectra
from bigbigan.training.log import RunLog
from bigbigan.training.objectives import Objective
from bigbigan.training.state import TrainingState

logger = logging.getLogger(__name__)
IMAGES, PART = 256, 64  # of each kind that a look takes; at once
VALUES = 2**27  # pixel values of a kind, at most: half a GiB, which is 170 images of 512 px, or 42 of 1,024


class CollapseProbe:
    """Measures signs of collapse on the networks as they train, on the same images and latents each time.

    model: in training mode, so it normalises by batch statistics.  train, test: the data; test holds images that the
    run does not train on.  prior, seed: of the latents.  images: of each kind.  objective: says which scores count, and
    what D takes for an encoder pair.  Measuring changes nothing and enters no collective.
    """

    def __init__(
        self,
        model: BigBiGAN,
        train: Images,
        test: Images,
        prior: str,
        seed: int,
        images: int = IMAGES,
        *,
        objective: Objective | None = None,
    ):
        self.model, self.device = model, next(model.parameters()).device
        self.objective = objective or Objective()
        network = model.encoder or model.generator
        size = getattr(network, "full_size", network.image_size)
        images = min(images, VALUES // (3 * size**2))
        self.train, self.test = (self._pictures(split, size, images) for split in (train, test))
        self.z = sample_prior(prior, seed, "watch", np.arange(images), model.generator.latent_dim).to(self.device)

    def _pictures(self, images: Images, size: int, count: int) -> tuple[Tensor, Tensor]:
        chosen = spread(len(images), count)
        readable = list(evaluation_batches(images.subset(chosen), size, count))
        if not readable:
            raise DataError(
                f"{images.origin}: expected images to look at, found none of {len(chosen)} that can be read"
            )
        pixels, at = zip(*readable, strict=True)
        x, at = torch.cat(pixels), chosen[np.concatenate(at)]
        labels = torch.zeros(len(x), dtype=torch.long) if images.labels is None else torch.from_numpy(images.labels[at])
        twice = 1 + (len(x) < 2)  # a batch norm needs two
        return to_signed(x).repeat(twice, 1, 1, 1).to(self.device), labels.repeat(twice).to(self.device)

    @torch.no_grad()
    def measure(self) -> tuple[dict[str, list[float]], dict[str, float]]:
        """Return the three largest singular values of each layer, and figures by name."""
        model, found = self.model, spectra(self.model)
        classes = torch.arange(len(self.z), device=self.device) % max(1, model.generator.classes)
        with local_only():
            samples = torch.cat([model.generator(z, self._known(c)) for z, c in parts(self.z, classes)])
            fake = self._sums(samples, self.z, classes)
            real, held_out = (self._encoder_pairs(*pictures) for pictures in (self.train, self.test))
            tests = self._seen(self.test[0])
        boundary = self.objective.boundary(real, fake)
        figures = {
            "d_right_on_training_images": share(real > boundary),
            "d_right_on_held_out_images": share(held_out > boundary),
            "d_right_on_samples": share(fake < boundary),
            "score_gap": float(real.mean() - fake.mean()),
            "score_gap_held_out": float(held_out.mean() - fake.mean()),
            "memorised": higher(real, held_out),
            "sample_diversity": diversity(samples) / max(diversity(pool_to(tests, samples.shape[-1])), 1e-12),
        }
        for name in ("generator", "discriminator"):
            if largest := [values[0] for layer, values in found.items() if layer.startswith(name)]:
                figures[f"sigma0_{name}"] = max(largest)
        return found, figures

    def _known(self, classes: Tensor) -> Tensor | None:
        return classes if self.model.generator.classes else None

    def _encoder_pairs(self, x: Tensor, classes: Tensor) -> Tensor:
        x, z = self._seen(x), x.new_zeros(len(x), 0)  # a D without H and J does not look at z
        if self.model.encoder is not None:
            z = torch.cat([self.model.infer(part, self._known(c)).mean for part, c in parts(x, classes)])
        return self._sums(self.model.for_discriminator(x), z, classes)

    def _seen(self, x: Tensor) -> Tensor:
        return self.model.generator.prepare(x)

    def _sums(self, x: Tensor, z: Tensor, classes: Tensor) -> Tensor:
        """Return the summed score of every pair, (N,), of the terms that the objective trains."""
        scores = [self.model.discriminator(a, b, self._known(c)) for a, b, c in parts(x, z, classes)]
        return torch.cat([self.objective.select(part).total() for part in scores])


def parts(*columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut the columns into equal parts of at most `PART` rows, so that measuring needs little memory."""
    count = -(-len(columns[0]) // PART)
    return zip(*(column.tensor_split(count) for column in columns), strict=True)


MEMORISED = 0.75  # chance that D scores a training image above a held-out one; 1/2 where it knows none by heart
ALIKE = 0.2  # of the variance of held-out images
GROWTH = 2.0  # of a layer's σ0 from one look to the next


def signs(
    figures: dict[str, float], spectra: dict[str, list[float]], before: dict[str, list[float]], form: str = "hinge"
) -> dict[str, str]:
    """Return the signs of collapse in a measurement: {name: a sentence}.

    figures, spectra: what `CollapseProbe.measure` returned.  before: the spectra of the measurement before, or {}.
    form: of the loss, see `losses.inverted_gap`.
    """
    found = {}
    if figures["memorised"] > MEMORISED:
        found["memorising"] = (
            f"D scores a training image above a held-out one with chance {figures['memorised']:.2f} (right on "
            f"{figures['d_right_on_training_images']:.0%} and {figures['d_right_on_held_out_images']:.0%}): "
            "it learns them by heart"
        )
    if not figures["score_gap"] > inverted_gap(form):
        found["scores"] = f"G's pairs score {-figures['score_gap']:.3g} higher than real ones: D has lost"
    if not figures["sample_diversity"] > ALIKE:
        found["diversity"] = (
            f"samples have {figures['sample_diversity']:.2f} of the variance of held-out images: they are all alike"
        )
    grown = {name: values[0] / max(before[name][0], 1e-12) for name, values in spectra.items() if name in before}
    most = max(grown, key=grown.get, default="")
    if most and not all(growth < GROWTH for growth in grown.values()):  # NaN is none
        found["spectra"] = f"σ0 of {most} is {grown[most]:.1f} times what it was at the look before"
    return found


class Guard:
    """Carries out --run.on_nonfinite and --run.on_collapse after every iteration.

    What it remembers between looks is `TrainingState.guard`: a checkpoint keeps it, and a roll-back takes it back.
    folder: of the checkpoints; the one from before an alarm is kept beside it, in before_collapse/.
    build_probe: returns the `CollapseProbe`; called on the main process alone, before the first look.
    settle: waits, on every process, until no checkpoint is being written; called before checkpoints are looked at.
    """

    def __init__(
        self,
        state: TrainingState,
        config: Config,
        folder: Path,
        device: torch.device,
        log: RunLog,
        build_probe: Callable[[], CollapseProbe],
        *,
        settle: Callable[[], None] = lambda: None,
    ):
        self.settle = settle
        self.recovery = RecoveryPolicy(state, config, folder, device, log.note)
        self.state, self.run, self.folder, self.device = state, config.run, folder, device
        self.form = config.loss.form
        self.log, self.build_probe = log, build_probe
        self.probe: CollapseProbe | None = None

    def rolled_back(self, broken: str, looking: bool) -> bool:
        """Return whether the run was rolled back: then the caller reopens the data stream and discards running sums.

        broken: what was not finite, in words, or "".  looking: whether to look for signs of collapse.
        Every process must call this. Raises TrainingFailure where the run must end.
        """
        if broken:
            self.settle()
            self.recovery.after_nonfinite(broken)
            return True
        return looking and self._look()

    def _look(self) -> bool:
        new = self._new_signs() if rank() == 0 else []
        memory = self.state.guard
        counts = torch.tensor([float(len(new)), float(len(memory.known))], device=self.device)
        alarm, known = (bool(count) for count in all_reduce(counts))  # the main process alone measures
        if not alarm:
            memory.good_at = memory.good_at if known else self.state.images_seen
            return False
        self.settle()
        text = "signs of collapse: " + ("; ".join(new) or "see the main process's")
        good = self._from_before()
        if rank() == 0:
            where = "there is none" if good is None else f"kept as {self._keep(good, text)}"
            self.log.note(
                "alarm", f"{text}; the checkpoint from before: {where}", self.state.images_seen, self.state.iterations
            )
        barrier(self.device)
        if self.run.on_collapse == "stop":
            raise TrainingFailure(
                f"at {self.state.images_seen:,} images {text}: the run ends, as --run.on_collapse stop says. "
                f"The newest checkpoint from before is {good or 'none'}; remedies: docs/collapse.md"
            )
        if self.run.on_collapse == "roll_back":
            self.recovery.after_collapse(text, good)
            return True
        return False

    def _new_signs(self) -> list[str]:
        try:
            self.probe = self.probe or self.build_probe()
        except DataError as error:  # the training images may well be kept on the device
            logger.warning("no look for signs of collapse at %s images: %s", f"{self.state.images_seen:,}", error)
            return []
        state, (spectra, figures) = self.state, self.probe.measure()
        rounded = {name: [float(f"{value:.6g}") for value in values] for name, values in spectra.items()}
        self.log.write("spectra", {"spectra": rounded} | figures, state.images_seen, state.iterations)
        memory = state.guard
        found = signs(figures, spectra, memory.spectra, self.form)
        memory.spectra = spectra
        new = [text for name, text in found.items() if name not in memory.known]
        memory.known |= found.keys()
        return new

    def _from_before(self) -> Path | None:
        """The newest checkpoint from before the first sign; the oldest where there is none so old any more."""
        there = checkpoint.complete(self.folder)  # oldest first, all names of one length
        before = [path for path in there if int(path.name) <= self.state.guard.good_at]
        return before[-1] if before else next(iter(there), None)

    def _keep(self, good: Path, text: str) -> Path:
        folder = self.folder.parent / "before_collapse"
        if not (folder / good.name).is_dir():
            checkpoint.keep(folder, good, "alarm.json", {"images_seen": self.state.images_seen, "alarm": text})
        return folder / good.name


def share(right: Tensor) -> float:
    """Return the share of true entries."""
    return float(right.cpu().double().mean())


def higher(a: Tensor, b: Tensor) -> float:
    """Return the chance that an entry of a, (N,), is higher than one of b, (M,).

    1/2 if they have one law, 1 if every a is above every b.
    """
    return float(torch.sign(a[:, None] - b).cpu().double().mean() / 2 + 0.5)


def diversity(images: Tensor) -> float:
    """Return the variance over the images, averaged over pixels: half the mean squared distance of two images."""
    return float(images.cpu().double().var(0).mean())
