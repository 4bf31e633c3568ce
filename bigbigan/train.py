"""Train a BigBiGAN: `accelerate launch bigbigan/train.py [--config NAME or PATH] [--section.field VALUE ...] [--dry-run]`.

The same command again resumes an interrupted run.
"""

import itertools
import logging
import sys
import time
import traceback
from contextlib import nullcontext
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
from torch import Tensor

import bigbigan
from bigbigan import checkpoint
from bigbigan.checkpoint import CheckpointError, TrainingState
from bigbigan.closing import close
from bigbigan.config import Config, ConfigError, find_config, flatten, parse, write_yaml
from bigbigan.data import Augment, DataError, RealImages, Stream, evaluation_batches, to_signed
from bigbigan.ema import Averages, averaged_model
from bigbigan.guard import StopRequest, TrainingFailure, check_finite, check_finite_weights
from bigbigan.latents import sample_prior
from bigbigan.launch import build_accelerator, check_classes, decoders, hold, open_split, revision
from bigbigan.layers import LostProcess, all_reduce, alone, barrier
from bigbigan.model import BigBiGAN, load_weights
from bigbigan.monitor import Monitor
from bigbigan.progressive import Course, Growth, seen_by
from bigbigan.release import adopt_architecture
from bigbigan.report import shapes_block, start_block
from bigbigan.step import Batch, Step, build_optimizers, draw_batch

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    config, options = parse(argv)
    try:
        status = Training(config, find_config(options.config)).run(dry=options.dry_run)
    except (ConfigError, DataError, CheckpointError, TrainingFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, TrainingFailure) else 2) from None
    except LostProcess as error:
        print(f"error: {error}; the same command goes on from the newest checkpoint", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"error: {error}; what is in the newest checkpoint is safe, and the same command goes on from it", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:  # a second Ctrl-C
        print("interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    if status:
        raise SystemExit(status)


class Training:
    """One run: everything that it is made of, and the loop."""

    def __init__(self, config: Config, preset: Path):
        self.started = time.monotonic()
        self.config = config
        self.folder = Path(config.run.root) / config.run.name
        self.preset = preset
        self.accelerator = build_accelerator(config, self.folder)
        processes = self.accelerator.num_processes
        config.validate(processes)
        torch.manual_seed(config.run.seed)
        self.checkpoints = self.folder / "checkpoints"
        source = adopt_architecture(config, self.checkpoints)
        self.train_images, self.test_images = open_split(config, test=False), open_split(config, test=True)
        check_classes(config.model.classes, self.train_images, self.test_images)
        try:
            self.model = BigBiGAN.from_config(config.model).to(self.accelerator.device, memory_format=torch.channels_last).train()
        except ValueError as error:  # a network that cannot be built as asked
            raise ConfigError(f"--model: {error}") from None
        if source is not None:
            load_weights(self.model, source.state_dict(), config.model.init_from)
        o = config.optim
        self.averages = Averages(self.model.generator, self.model.encoder, o.ema_half_life, o.ema_rampup)
        d_optimizer, eg_optimizer = build_optimizers(
            self.model, o.generator_lr, o.discriminator_lr, o.encoder_lr, o.betas, o.eps
        )  # fmt: skip
        self.step = Step(
            self.model, d_optimizer, eg_optimizer, config.loss.form, config.loss.unary_x, config.loss.unary_z,
            config.data.chunks, self.accelerator.autocast, config.loss.penalty, config.loss.gradient_norm, config.loss.drift,
        )  # fmt: skip
        self.state = TrainingState(self.model, self.averages, {"discriminator": d_optimizer, "encoder_generator": eg_optimizer})
        networks, optimizers = [self.model, self.averages.networks], [d_optimizer, eg_optimizer]
        self.course = Course(Growth.from_config(config), networks, optimizers, o.lr_rampup, config.grow.reset_optimizers)
        self.batches = o.d_steps + (self.model.encoder is not None)  # of real images in an iteration
        self.stream = Stream(
            self.train_images, config.model.encoder_image_size or config.model.image_size, config.run.seed,
            Augment(config.data.augment, config.data.flip),
            self.accelerator.process_index, processes, decoders(config), self.accelerator.device,
            config.data.cache, config.data.cache_gib * 2**30, config.data.max_unreadable,
        )  # fmt: skip

    def run(self, dry: bool = False) -> int:
        """→ the exit status: 0 when the run is complete, see `StopRequest.status` when it was asked to stop."""
        main = self.accelerator.is_main_process
        with hold(self.folder) if main and not dry else nullcontext():
            barrier(self.accelerator.device)  # until the main process holds the folder
            self.saved = checkpoint.resume(self.checkpoints, self.state, self.config, self.accelerator.device)
            self.saved_at = self.state.images_seen
            if main:
                print(self.start_text(self.saved), flush=True)
            if dry:
                self.accelerator.print(shapes_block(self.model, self.accelerator.device), flush=True)
                return 0
            if main:
                write_yaml(self.config, self.folder / "config.yaml", f"bigbigan {bigbigan.__version__}, {revision()}")
            self.accelerator.init_trackers("bigbigan", {k: str(v) for k, v in flatten(self.config).items()})
            self.stop = StopRequest(self.config.run.stop_after, self.started)
            self.monitor = Monitor(self.folder, self.state.images_seen, self.config.run.images, main, self.track())
            try:
                self.loop()
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)  # closes the loaders, whose workers would keep the process from ending
                raise
            finally:
                self.monitor.close()
                self.stop.restore()
            if self.stop.asked:
                seen, where = self.state.images_seen, self.saved or "the beginning"
                self.monitor.say(f"stopped at {seen:,} images; the same command goes on from {where}")
                self.accelerator.end_training()
                return self.stop.status
            self.finish()
        return 0

    def loop(self) -> None:
        """D updates, one E+G update, averages; then whatever is due. All counts are in real images."""
        run, optim, batch_size = self.config.run, self.config.optim, 0
        self.catch_up()
        state, step, joint = self.state, self.step, self.model.encoder is not None
        sums: dict[str, Tensor] = {}
        since = 0
        while not self.stop.agreed(self.accelerator.device) and state.images_seen < run.images:
            self.begun, level = state.images_seen, self.course.at(state.images_seen)
            if batch_size != (size := self.course.growth.batch_size(self.begun)):  # at first, and where a resolution has its own
                batch_size = size
                reals = self.stream.batches(self.begun, sys.maxsize, batch_size)
            for _ in range(optim.d_steps):
                real = next(reals)
                scores = step.discriminator_update(self.batch(real))
            values = scores | step.encoder_generator_update(self.batch(next(reals)) if joint else self.batch(real, " of G"))
            values |= {} if level is None else {"level": torch.tensor(level)}
            state.images_seen += self.batches * batch_size
            state.iterations += 1
            self.averages.update(state.images_seen, state.images_seen - self.begun)
            sums = {name: sums.get(name, 0) + value for name, value in values.items()}
            since += 1
            self.monitor.advance(state.images_seen)
            if self.due(run.log_every):
                self.log({name: value / since for name, value in sums.items()})
                sums, since = {}, 0
            looking, evaluating = self.due(run.sample_every), self.due(run.evaluate_every)
            saving = self.due(run.checkpoint_every) or evaluating  # before an evaluation, so that its time puts nothing at risk
            if looking or saving:
                self.refresh()
            if looking:
                self.grids()
            if saving:
                self.save()
            if evaluating:
                self.evaluate()
        if state.images_seen > self.saved_at:  # asked to stop
            self.refresh()
            self.save()

    def due(self, every: int) -> bool:
        """Whether the last iteration crossed a multiple of `every` images (0: never), or ended the run."""
        seen, run = self.state.images_seen, self.config.run
        return bool(every) and (seen // every > self.begun // every or seen >= run.images)

    def catch_up(self) -> None:
        """What was due at the checkpoint that the run resumes from, and that a kill or a stop prevented."""
        run, owed, seen = self.config.run, [False, False], self.state.images_seen
        self.begun = max(0, seen - self.batches * self.course.growth.batch_size(max(0, seen - 1)))
        if seen and self.accelerator.is_main_process:
            owed = self.monitor.owed(seen, self.due(run.sample_every), self.due(run.evaluate_every))
        looking, evaluating = all_reduce(torch.tensor(owed, device=self.accelerator.device, dtype=torch.float32)).tolist()
        if looking or evaluating:
            self.refresh()
        if looking:
            self.grids()
        if evaluating:
            self.evaluate()

    def batch(self, real: RealImages, purpose: str = "") -> Batch:
        """Real images, at the size and fade of a growing model, and their share of the run's random numbers, on the device."""
        config, generator = self.config, self.model.generator
        drop = self.model.discriminator.f.drop_channels if config.loss.form == "lsgan" else 0
        settings = config.run.seed, config.model.prior, generator.latent_dim, config.model.classes
        batch = draw_batch(real, *settings, self.accelerator.device, drop, purpose)
        batch.x = seen_by(generator, batch.x)
        return batch

    def log(self, values: dict[str, Tensor]) -> None:
        stacked = all_reduce(torch.stack([values[name].to(self.accelerator.device) for name in values]))
        stacked /= self.accelerator.num_processes
        numbers = dict(zip(values, stacked.tolist(), strict=True))
        self.monitor.log(numbers, self.state.images_seen, self.state.iterations)
        check_finite(numbers, self.state.images_seen, str(self.saved or "the beginning"))

    def refresh(self) -> None:
        """Sampling statistics for the averages: every process takes its share of fixed latents and training images."""
        count = self.config.run.statistics_images
        at_once = min(self.config.data.batch_size // self.config.data.chunks, count)
        batches = (self.batch(real) for real in self.stream.batches(0, count, at_once))
        self.averages.refresh((b.x, b.z, b.z_classes) for b in batches)

    @torch.no_grad()
    def grids(self) -> None:
        """Samples of fixed latents, and fixed test images beside their reconstructions: the grids of a run are a film."""
        if not self.accelerator.is_main_process:
            return
        c, device, side = self.config, self.accelerator.device, self.config.run.grid
        places = np.arange(side * side)
        z = sample_prior(c.model.prior, c.run.seed, "grid", places, self.model.generator.latent_dim).to(device)
        classes = torch.arange(side * side, device=device) // side % c.model.classes if c.model.classes else None
        self.monitor.samples(self.averages.generator(z, classes), self.state.images_seen, side)
        if self.model.encoder is None:
            return
        tests = evaluation_batches(self.test_images, self.model.encoder.image_size, max(1, side * side // 2))
        for pixels, indices in itertools.islice(tests, 1):
            x = to_signed(pixels).to(device)
            self.monitor.reconstructions(x, self.reconstruct(x, indices), self.state.images_seen, max(1, side // 2))

    def reconstruct(self, x: Tensor, indices: np.ndarray) -> Tensor:
        """G(z_mean) of the averaged networks; a conditional G is told the images' classes."""
        classes = torch.from_numpy(self.test_images.labels[indices]).to(x.device) if self.config.model.classes else None
        return self.averages.generator(self.averages.encoder(x).mean, classes)

    def save(self) -> None:
        if self.accelerator.is_main_process:
            check_finite_weights(self.model, state_of=self.state.images_seen, checkpoint=str(self.saved or "the beginning"))
            self.saved = checkpoint.save(self.checkpoints, self.state, self.config, self.config.run.keep_checkpoints)
        self.saved_at = self.state.images_seen
        barrier(self.accelerator.device)

    def evaluate(self) -> None:
        """Quick figures of the averages, which the run does not feel; the best checkpoint by --run.best is kept.

        The main process works alone, the others wait for it; a stop abandons it, and the next start catches up.
        """
        if self.accelerator.is_main_process:
            self.stop.unless_asked(self._evaluate)
        barrier(self.accelerator.device)

    def _evaluate(self) -> None:
        from eval_linear.quick import better, chosen, quick_figures

        run, state = self.config.run, self.state
        try:
            with alone():
                model, name = averaged_model(self.model, self.averages), Path(self.config.data.path).name
                figures = quick_figures(model, self.train_images, self.test_images, name, run.evaluate_images, run.seed)
        except ValueError as error:  # such as too few images of a class; no reason to end the run
            log.warning("no figures at %s images: %s", f"{state.images_seen:,}", error)
            return
        if run.best:
            name, folder = chosen(run.best, figures), self.folder / "best"
            if better(name, figures[name], checkpoint.best_value(folder, name)):
                checkpoint.keep_best(folder, self.saved, name, figures[name])
        self.monitor.figures(figures, state.images_seen, state.iterations)  # last: this line says that all of it was done

    def finish(self) -> None:
        """The release, the closing figures and the probe; from here on the main process works alone."""
        main = self.accelerator.is_main_process
        self.accelerator.end_training()
        if not main:
            return
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        model = averaged_model(self.model, self.averages)
        close(self.folder, model, self.config, self.train_images, self.test_images, self.state, self.monitor, self.probe)

    def start_text(self, resumed: Path | None) -> str:
        seed, source = self.config.run.seed, self.config.model.init_from
        weights = f"from {source}, with its architecture" if source else f"random, seed {seed}"
        if resumed:
            weights = f"resumed from {resumed} at {self.state.images_seen:,} images"
        precision = "float32" if self.accelerator.mixed_precision == "no" else self.accelerator.mixed_precision
        where = f"{self.accelerator.device}, {precision}" + (", images kept on it" if self.stream.cached is not None else "")
        return start_block(
            self.config, self.preset.stem, self.model, self.train_images, self.test_images, weights, where,
            self.accelerator.num_processes, self.folder,
        )  # fmt: skip

    def probe(self, parts: tuple[str, ...]) -> str:
        """Quick parts of the probe; `eval_linear/probe.py` by itself measures generation too, and more."""
        from eval_linear.probe import EXPECTED, Probe, run_probe

        try:
            return run_probe(Probe(ckpt=str(self.folder), parts=parts, labels=(1.0,)))
        except EXPECTED as error:
            return f"no probe: {error}"

    def track(self):
        log = lambda values, images_seen: self.accelerator.log(values, step=images_seen)  # noqa: E731
        return log if self.config.run.trackers else None


if __name__ == "__main__":
    main()
