"""Train a BigBiGAN:
`accelerate launch bigbigan/train.py [--config NAME or PATH] [--section.field VALUE ...] [--dry-run]`.

The same command again resumes an interrupted run.
"""

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch import Tensor

import bigbigan
from bigbigan.config import Config, find_config, flatten, parse, preset_name, write_yaml
from bigbigan.data import RealImages
from bigbigan.distributed import all_reduce, barrier, local_only
from bigbigan.errors import (
    BigBiGANError,
    CheckpointError,
    CompilationError,
    ConfigError,
    DataError,
    LostProcess,
    TrainingFailure,
)
from bigbigan.model import BigBiGAN
from bigbigan.networks.growing import seen_by
from bigbigan.networks.weights import load_weights
from bigbigan.release.load import adopt_architecture
from bigbigan.report import shapes_block, start_block
from bigbigan.report.finish import close
from bigbigan.training import checkpoint
from bigbigan.training.batch import Batch, draw_batch
from bigbigan.training.checkpoint import TrainingState
from bigbigan.training.compile import compile_step
from bigbigan.training.ema import Averages, averaged_model
from bigbigan.training.growing_schedule import Course, GrowthSchedule
from bigbigan.training.guard import CollapseProbe, Guard, StopRequest, check_finite, check_finite_weights
from bigbigan.training.launch import (
    build_accelerator,
    check_classes,
    lock_run_folder,
    open_split,
    open_stream,
    revision,
)
from bigbigan.training.log import Monitor
from bigbigan.training.optim import build_optimizers, rates, set_rates
from bigbigan.training.pictures import draw_grids
from bigbigan.training.step import Step

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    config, options = parse(argv)
    training = None
    try:
        training = Training(config, find_config(options.config))
        status = training.run(dry=options.dry_run)
    except DataError as error:  # in mid-run too: a disk that was taken away
        print(f"error: {error}{go_on(training)}", file=sys.stderr)
        raise SystemExit(2) from None
    except (ConfigError, CheckpointError, TrainingFailure, CompilationError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, (TrainingFailure, CompilationError)) else 2) from None
    except LostProcess as error:
        print(f"error: {error}; the same command goes on from the newest checkpoint", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"error: {error}{go_on(training)}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:  # a second Ctrl-C
        print("interrupted; the same command goes on from the newest checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    if status:
        raise SystemExit(status)


def go_on(training: "Training | None") -> str:
    """Where a run that failed on the way can be taken up; nothing of one that had not begun."""
    if not hasattr(training, "saved"):
        return ""
    return f"; the same command goes on from {training.saved or 'the beginning'}"


class Training:
    """One run: everything that it is made of, and the loop."""

    def __init__(self, config: Config, preset: Path):
        self.started = time.monotonic()
        self.config = config
        self.folder = Path(config.run.root) / config.run.name
        self.preset = preset
        self.accelerator = build_accelerator(config, self.folder)
        config.validate(self.accelerator.num_processes)
        torch.manual_seed(config.run.seed)
        self.checkpoints = self.folder / "checkpoints"
        source = adopt_architecture(config, self.checkpoints)
        self.train_images, self.test_images = open_split(config, test=False), open_split(config, test=True)
        check_classes(config.model.classes, self.train_images, self.test_images)
        try:
            self.model = (
                BigBiGAN.from_config(config.model)
                .to(self.accelerator.device, memory_format=torch.channels_last)
                .train()
            )
        except ValueError as error:  # a network that cannot be built as asked
            raise ConfigError(f"--model: {error}") from None
        if source is not None:
            load_weights(self.model, source.state_dict(), config.model.init_from)
        o, reset = config.optim, config.grow.reset_optimizers
        self.averages = Averages(self.model.generator, self.model.encoder, o.ema_half_life, o.ema_rampup)
        optimizers = build_optimizers(
            self.model, o.generator_lr, o.discriminator_lr, o.encoder_lr, o.betas, o.eps, o.weight_decay
        )
        self.step = Step.from_config(config, self.model, *optimizers, self.accelerator.autocast)
        named = dict(zip(("discriminator", "encoder_generator"), optimizers, strict=True))
        self.state = TrainingState(self.model, self.averages, named, self.step.augment)
        self.course = Course(
            GrowthSchedule.from_config(config), [self.model, self.averages.networks], optimizers, reset
        )
        self.stream = open_stream(config, self.train_images, self.accelerator)

    def run(self, dry: bool = False) -> int:
        """→ the exit status: 0 when the run is complete, see `StopRequest.status` when it was asked to stop."""
        main = self.accelerator.is_main_process
        with lock_run_folder(self.folder) if main and not dry else nullcontext():
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
            watch = partial(
                CollapseProbe,
                self.model,
                self.train_images,
                self.test_images,
                self.config.model.prior,
                self.config.run.seed,
            )
            self.guard = Guard(self.state, self.config, self.checkpoints, self.accelerator.device, self.monitor, watch)
            try:
                if self.config.run.compile != "off":
                    self.compile()
                self.loop()
            except BaseException as error:
                traceback.clear_frames(
                    error.__traceback__
                )  # closes the loaders, whose workers would keep the process from ending
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

    def compile(self) -> None:
        first = next(self.stream.batches(0, 1, self.config.data.batch_size))
        self.monitor.say(f"compiled: {compile_step(self.step, self.batch(first), self.config.run.compile)}")

    def loop(self) -> None:
        """D updates, one E+G update, averages; then whatever is due. All counts are in real images."""
        run, optim, state, step = self.config.run, self.config.optim, self.state, self.step
        self.catch_up()
        reals, sums, since = self.begin()
        while not self.stop.agreed(self.accelerator.device) and state.images_seen < run.images:
            self.begun, level = state.images_seen, self.course.at(state.images_seen)
            set_rates(state.optimizers, rates(optim, self.begun, state.recovery.factors))
            if self.batch_size != self.course.growth.batch_size(self.begun):  # a resolution has its own
                reals = self.reals()
            for i in range(optim.d_steps):
                batch = self.batch(real := next(reals))
                scores = step.discriminator_update(batch, state.iterations * optim.d_steps + i)
            if not optim.simultaneous:  # else on D's batch
                batch = self.batch(next(reals)) if self.config.batches > optim.d_steps else self.batch(real, " of G")
            values = scores | step.encoder_generator_update(batch)
            values |= {} if level is None else {"level": torch.tensor(level)}
            state.images_seen += self.config.batches * self.batch_size
            state.iterations += 1
            self.averages.update(state.images_seen, state.images_seen - self.begun)
            sums = {name: sums.get(name, 0) + value for name, value in values.items()}
            since += 1
            self.monitor.advance(state.images_seen)
            if self.guard.rolled_back(step.health.found(wait=self.due(run.log_every)), self.due(run.spectra_every)):
                reals, sums, since = self.begin()
                continue
            if self.due(run.log_every):
                self.log({name: value / since for name, value in sums.items()})
                sums, since = {}, 0
            looking, evaluating = self.due(run.sample_every), self.due(run.evaluate_every)
            saving = (
                self.due(run.checkpoint_every) or evaluating
            )  # before an evaluation, so that its time puts nothing at risk
            if looking or saving:
                self.update_sampling_statistics()
            if looking:
                self.grids()
            if saving:
                self.save()
            if evaluating:
                self.evaluate()
        if state.images_seen > self.saved_at:  # asked to stop
            self.update_sampling_statistics()
            self.save()

    def begin(self) -> tuple[Iterator[RealImages], dict[str, Tensor], int]:
        """The stream from the state's place on, and sums of nothing: at the start, and after the guard has acted."""
        self.step.health.forget()
        self.saved_at = min(self.saved_at, self.state.images_seen)
        return self.reals(), {}, 0

    def reals(self) -> Iterator[RealImages]:
        """The stream from the state's place on, in the batches of its resolution."""
        self.batch_size = self.course.growth.batch_size(self.state.images_seen)
        return self.stream.batches(
            self.state.images_seen + self.state.recovery.passed_over, sys.maxsize, self.batch_size
        )

    def due(self, every: int) -> bool:
        """Whether the last iteration crossed a multiple of `every` images (0: never), or ended the run."""
        seen, run = self.state.images_seen, self.config.run
        return bool(every) and (seen // every > self.begun // every or seen >= run.images)

    def catch_up(self) -> None:
        """What was due at the checkpoint that the run resumes from, and that a kill or a stop prevented."""
        run, missing_outputs, seen = self.config.run, [False, False], self.state.images_seen
        self.begun = max(0, seen - self.config.batches * self.course.growth.batch_size(max(0, seen - 1)))
        if seen and self.accelerator.is_main_process:
            missing_outputs = self.monitor.missing_outputs(
                seen, self.due(run.sample_every), self.due(run.evaluate_every)
            )
        looking, evaluating = all_reduce(
            torch.tensor(missing_outputs, device=self.accelerator.device, dtype=torch.float32)
        ).tolist()
        if looking or evaluating:
            self.update_sampling_statistics()
        if looking:
            self.grids()
        if evaluating:
            self.evaluate()

    def batch(self, real: RealImages, purpose: str = "") -> Batch:
        """Real images, at the size and fade of a growing model, and their share of the run's random numbers, on the
        device."""
        config, generator, discriminator = self.config, self.model.generator, self.model.discriminator
        dropout = (discriminator.last_features, config.optim.dropout) if config.optim.dropout else (0, 0.0)
        drop = discriminator.f.drop_channels if config.loss.form == "lsgan" else 0
        settings = config.run.seed, config.model.prior, generator.latent_dim, config.model.classes
        batch = draw_batch(real, *settings, self.accelerator.device, dropout, drop, purpose, self.step.augment.width)
        batch.x = seen_by(generator, batch.x)
        return batch

    def log(self, values: dict[str, Tensor]) -> None:
        stacked = (
            all_reduce(torch.stack([v.to(self.accelerator.device) for v in values.values()]))
            / self.accelerator.num_processes
        )
        numbers = dict(zip(values, stacked.tolist(), strict=True))
        self.monitor.log(numbers, self.state.images_seen, self.state.iterations)
        check_finite(numbers, self.state.images_seen, str(self.saved or "the beginning"))

    def update_sampling_statistics(self) -> None:
        """Sampling statistics for the averages: every process takes its share of fixed latents and training images."""
        count = self.config.run.statistics_images
        at_once = min(self.config.data.batch_size // self.config.data.chunks, count)
        batches = (self.batch(real) for real in self.stream.batches(0, count, at_once))
        self.averages.update_sampling_statistics((b.x, b.z, b.z_classes) for b in batches)

    def grids(self) -> None:
        if self.accelerator.is_main_process:
            draw_grids(self.averages, self.test_images, self.config, self.monitor, self.state.images_seen)

    def save(self) -> None:
        if self.accelerator.is_main_process:
            check_finite_weights(
                self.model, state_of=self.state.images_seen, checkpoint=str(self.saved or "the beginning")
            )
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
            with local_only():
                model, name = averaged_model(self.model, self.averages), Path(self.config.data.path).name
                figures = quick_figures(model, self.train_images, self.test_images, name, run.evaluate_images, run.seed)
        except ValueError as error:  # such as too few images of a class; no reason to end the run
            log.warning("no figures at %s images: %s", f"{state.images_seen:,}", error)
            return
        if run.best:
            name, folder = chosen(run.best, figures), self.folder / "best"
            if better(name, figures[name], checkpoint.best_value(folder, name)):
                checkpoint.keep_best(folder, self.saved, name, figures[name])
        self.monitor.figures(
            figures, state.images_seen, state.iterations
        )  # last: this line says that all of it was done

    def finish(self) -> None:
        """The release, the closing figures and the probe; from here on the main process works alone."""
        main = self.accelerator.is_main_process
        self.accelerator.end_training()
        if not main:
            return
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        model = averaged_model(self.model, self.averages)
        close(
            self.folder, model, self.config, self.train_images, self.test_images, self.state, self.monitor, self.probe
        )

    def start_text(self, resumed: Path | None) -> str:
        seed, source = self.config.run.seed, self.config.model.init_from
        weights = f"from {source}, with its architecture" if source else f"random, seed {seed}"
        if resumed:
            weights = f"resumed from {resumed} at {self.state.images_seen:,} images"
        precision = "float32" if self.accelerator.mixed_precision == "no" else self.accelerator.mixed_precision
        where = f"{self.accelerator.device}, {precision}" + (
            ", images kept on it" if self.stream.cached is not None else ""
        )
        return start_block(
            self.config, preset_name(self.preset), self.model, self.train_images, self.test_images, weights, where,
            self.accelerator.num_processes, self.folder,
        )  # fmt: skip

    def probe(self, parts: tuple[str, ...]) -> str:
        """Quick parts of the probe; `eval_linear/probe.py` by itself measures generation too, and more."""
        from eval_linear.probe import Probe, run_probe

        try:
            return run_probe(Probe(ckpt=str(self.folder), parts=parts, labels=(1.0,)))
        except BigBiGANError as error:
            return f"no probe: {error}"

    def track(self):
        log = lambda values, images_seen: self.accelerator.log(values, step=images_seen)  # noqa: E731
        return log if self.config.run.trackers else None


if __name__ == "__main__":
    main()
