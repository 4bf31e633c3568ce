"""A run: everything that it is made of, and the loop. All counts are in real images."""

import logging
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

import bigbigan
from bigbigan.config import Config, write_yaml
from bigbigan.config.command import say
from bigbigan.data import Images, RealImages, Stream, hold_out_for_choices
from bigbigan.data.fingerprint import record
from bigbigan.distributed import all_reduce, barrier
from bigbigan.errors import ConfigError
from bigbigan.files import expanded
from bigbigan.model import BigBiGAN
from bigbigan.networks.weights import load_weights
from bigbigan.training import checkpoint
from bigbigan.training.batch import Batch, Drawer
from bigbigan.training.bill import bill_block
from bigbigan.training.compile import compile_step
from bigbigan.training.ema import Averages, averaged_model
from bigbigan.training.guard import CollapseProbe, Guard, StopRequest, check_finite, check_finite_weights
from bigbigan.training.launch import (
    lock_run_folder,
    open_data,
    open_stream,
    revision,
    selection_share,
    split_rule,
)
from bigbigan.training.log import RunLog
from bigbigan.training.optim import build_optimizers
from bigbigan.training.pictures import KINDS, draw_grids, has_grids
from bigbigan.training.precision import check_convolutions, device_name
from bigbigan.training.schedule import Schedule
from bigbigan.training.start import shapes_block, start_block
from bigbigan.training.state import TrainingState
from bigbigan.training.threads import set_threads
from bigbigan.training.trackers import Trackers
from bigbigan.training.variants import augmentation_of, build_step
from bigbigan.training.writer import CheckpointWriter

Hook = Callable[["Trainer"], None]
log = logging.getLogger(__name__)


class Trainer:
    """One run, from its settings to its end.

    preset: its name, for the start block.  initial: a model whose weights the run starts from, or None.  started: a
    time of the monotonic clock, from which `run.stop_after` counts.
    evaluate: called on the main process every `run.evaluate_every` images, must change nothing and may be abandoned.
    page: (run folder, "training" or "stopped") → writes the page of the run; called on the main process after the
    grids, and where training ends before its time. Its failure is said once and ends nothing.
    finish: called on the main process when the run is complete and its process group is gone.
    images: the training and evaluation images where they are open already; None opens what the settings name.
    """

    def __init__(
        self,
        config: Config,
        preset: str,
        accelerator: Accelerator,
        *,
        initial: BigBiGAN | None,
        started: float,
        evaluate: Hook,
        page: Callable[[Path, str], object],
        finish: Hook,
        images: tuple[Images, Images] | None = None,
        flags: Collection[str] = (),
    ):
        self.config, self.preset, self.accelerator, self.started = config, preset, accelerator, started
        self.evaluation, self.page, self.finish = evaluate, page, finish
        self.page_failed = False
        self.trackers: Trackers | None = None  # on the main process, with `run.trackers`
        self.folder = run_folder(config)
        self.checkpoints = self.folder / "checkpoints"
        self.device, self.main = accelerator.device, accelerator.is_main_process
        begun = checkpoint.saved_config(self.checkpoints)
        config.data.split_rule = split_rule(config, begun)
        config.run.selection_share = selection_share(config, begun)
        self.train_images, self.test_images = open_data(config, flags) if images is None else images
        data = {"train": record(self.train_images), "test": record(self.test_images)}
        self.selection_images: Images | None = None
        if share := config.run.selection_share:
            self.train_images, self.selection_images = hold_out_for_choices(
                self.train_images, share, config.data.split_rule
            )
        self.model = self.build_model(initial)
        generator, encoder = self.model.generator, self.model.encoder
        self.averages = Averages(generator, encoder, config.optim.ema_decay, config.optim.ema_rampup)
        optimizers = build_optimizers(self.model, config.optim)
        self.step = build_step(config, self.model, optimizers, accelerator.autocast)
        self.state = TrainingState(self.model, self.averages, optimizers.named(), augmentation_of(self.step))
        self.state.data = data
        self.state.device_now = device_name(accelerator)
        self.schedule = Schedule(config, [self.model, self.averages.networks], optimizers.named())
        self.clock = Clock(self.state, config.run.images)
        self.drawer = Drawer(
            seed=config.run.seed,
            prior=config.model.prior,
            latent_dim=generator.latent_dim,
            classes=config.model.classes,
            device=self.device,
            draws=self.step.draws(),
        )
        self.stream = open_stream(config, self.train_images, accelerator)
        self.writer = CheckpointWriter()
        self.saved_at = 0
        self.begun = False

    @property
    def saved(self) -> Path | None:
        """The newest checkpoint that is complete; one that is being written does not count."""
        return self.writer.newest

    @property
    def held_out_images(self) -> Images:
        """The images that evaluations and the guard look at: those held out for choices, or else the test images."""
        return self.test_images if self.selection_images is None else self.selection_images

    @property
    def held_out_name(self) -> str:
        """What `held_out_images` are, for a log or a table."""
        kind = "test images" if self.selection_images is None else "training images held out for choices"
        return f"{len(self.held_out_images):,} {kind}"

    def build_model(self, initial: BigBiGAN | None) -> BigBiGAN:
        """Return the networks in training mode, with the random weights of the seed, or those of `initial`."""
        torch.manual_seed(self.config.run.seed)
        try:
            model = BigBiGAN.from_config(self.config.model)
        except ValueError as error:  # a network that cannot be built as asked
            raise ConfigError(f"--model: {error}") from None
        model = model.to(self.device, memory_format=torch.channels_last).train()
        if initial is not None:
            load_weights(model, initial.state_dict(), self.config.model.init_from)
        return model

    def run(self, dry: bool = False) -> int:
        """Train, resuming from the newest checkpoint, and return the exit status.

        0 when the run is complete; see `StopRequest.status` when it was asked to stop.  dry: print what the run is, and
        return.
        """
        with lock_run_folder(self.folder) if self.main and not dry else nullcontext():
            barrier(self.device)  # until the main process holds the folder
            self.writer.newest = checkpoint.resume(self.checkpoints, self.state, self.config, self.device)
            self.saved_at, self.begun = self.state.images_seen, True
            threads = set_threads(self)
            check_convolutions(self.model, self.device, self.accelerator.mixed_precision)
            if self.main:
                say(start_block(self, threads))
            if dry:
                self.accelerator.print(shapes_block(self.model, self.device), flush=True)
                self.accelerator.print(bill_block(self), flush=True)
                return 0
            self.train()
            if self.stop.asked:
                where = self.saved or "the beginning"
                self.log.say(f"stopped at {self.clock.seen:,} images; the same command goes on from {where}")
                self.write_page("stopped")
                self.close_trackers()
                self.accelerator.end_training()
                return self.stop.status
            self.accelerator.end_training()
            if self.main:
                if torch.distributed.is_initialized():
                    torch.distributed.destroy_process_group()
                self.finish(self)
            self.close_trackers()
        return 0

    def train(self) -> None:
        """Open what a run in training needs, and train to the end or to a request to stop."""
        run = self.config.run
        if self.main:
            for kind in KINDS:
                (self.folder / kind).mkdir(exist_ok=True)
            kept = replace(self.config, run=replace(run, accept_changes=False))  # asked for once, not for later starts
            write_yaml(kept, self.folder / "config.yaml", f"bigbigan {bigbigan.__version__}, {revision()}")
            if run.trackers:
                self.trackers = Trackers(self.accelerator, self.config, self.folder, self.clock.seen)
        track = self.trackers.figures if self.trackers is not None else None
        self.stop = StopRequest(run.stop_after, self.started)
        grown = self.schedule.growth.full_size_at
        self.log = RunLog(self.folder, self.clock.seen, run.images, self.main, track, grown)
        probe = partial(
            CollapseProbe,
            self.model,
            self.train_images,
            self.held_out_images,
            self.config.model.prior,
            run.seed,
            objective=self.step.objective,
        )
        self.guard = Guard(self.state, self.config, self.checkpoints, self.device, self.log, probe, settle=self.settle)
        try:
            if run.compile != "off":
                first = next(self.stream.batches(0, 1, self.config.data.batch_size))
                self.log.say(f"compiled: {compile_step(self.step, self.draw(first), run.compile)}")
            self.fit()
        except BaseException as error:
            # Closes the loaders, whose workers would keep the process alive.
            traceback.clear_frames(error.__traceback__)
            if isinstance(error, Exception):  # and not a second Ctrl-C
                self.finish_writing()
                self.write_page("stopped")
            raise
        finally:
            self.log.close()
            self.stop.restore()

    def fit(self) -> None:
        """Iterate; after each iteration do what is due: log, pictures, checkpoint, evaluation."""
        clock, run = self.clock, self.config.run
        self.make_missing_outputs()
        window = self.open_window()
        while not self.stop.agreed(self.device) and clock.seen < run.images:
            self.writer.check()
            phase = self.schedule.at(clock.seen, self.state.recovery.factors)  # rates, batch size, level
            self.schedule.apply(phase)
            reals = window.batches(phase.batch_size)

            values = self.step.iteration(reals, self.draw, self.state.iterations)  # D updates, one E+G update

            clock.advance(self.step.batches * phase.batch_size)
            self.averages.update(self.state.iterations, clock.last)
            window.add(values | phase.report())
            self.log.advance(clock.seen)

            drawing, evaluating = clock.due(run.sample_every), clock.due(run.evaluate_every)
            saving = clock.due(run.checkpoint_every) or evaluating  # so that an evaluation's time puts nothing at risk
            broken = self.step.health.found(wait=clock.due(run.log_every) or saving)
            if self.guard.rolled_back(broken, clock.due(run.spectra_every)):
                window = self.open_window()
                continue
            if clock.due(run.log_every):
                self.log_means(window.means())
            if drawing or saving:
                self.update_sampling_statistics()
            if drawing:
                self.draw_pictures()
            if saving:
                self.save()
            if evaluating:
                self.evaluate()
            if drawing or evaluating:
                self.write_page("training")
        if clock.seen > self.saved_at and not self.guard.rolled_back(self.step.health.found(), looking=False):
            self.update_sampling_statistics()  # asked to stop
            self.save()
        self.settle()

    def open_window(self) -> "Window":
        """Open the stream at the state's place, with empty sums: at the start, and after a roll-back."""
        self.step.health.forget()
        self.saved_at = min(self.saved_at, self.clock.seen)
        if self.saved and int(self.saved.name) > self.clock.seen:  # the guard has dropped what came after
            self.writer.newest = next(reversed(checkpoint.complete(self.checkpoints)), None)
        return Window(self.stream, self.state)

    def make_missing_outputs(self) -> None:
        """Make the pictures and the evaluation that were due when the run was killed after its last checkpoint."""
        run, seen, missing = self.config.run, self.clock.seen, [False, False]
        images = self.step.batches * self.schedule.growth.batch_size(max(0, seen - 1))
        self.clock.before = max(0, seen - images)
        if seen and self.main:
            missing = [
                self.clock.due(run.sample_every) and not has_grids(self.folder, seen),
                self.clock.due(run.evaluate_every) and not self.log.has_evaluation(seen),
            ]
        flags = torch.tensor(missing, device=self.device, dtype=torch.float32)
        drawing, evaluating = all_reduce(flags).tolist()
        if drawing or evaluating:
            self.update_sampling_statistics()
        if drawing:
            self.draw_pictures()
        if evaluating:
            self.evaluate()
        if seen:
            self.write_page("training")  # which may say that the run was stopped

    def draw(self, real: RealImages, suffix: str = "") -> Batch:
        """Return real images, at the size and fade of a growing network, with their random numbers, on the device."""
        batch = self.drawer(real, suffix)
        batch.x = self.model.generator.prepare(batch.x)
        return batch

    def log_means(self, means: dict[str, Tensor]) -> None:
        """Write the means over all processes; TrainingFailure if one is not finite."""
        stacked = torch.stack([value.to(self.device) for value in means.values()])
        numbers = (all_reduce(stacked) / self.accelerator.num_processes).tolist()
        values = dict(zip(means, numbers, strict=True))
        self.log.training(values, self.clock.seen, self.state.iterations)
        check_finite(values, self.clock.seen, str(self.saved or "the beginning"))

    def update_sampling_statistics(self) -> None:
        """Make the averages ready to sample: every process takes its share of fixed latents and training images."""
        run, data = self.config.run, self.config.data
        every = min(filter(None, (run.sample_every, run.checkpoint_every, run.evaluate_every)), default=run.images)
        count = run.statistics_images
        batches = (
            self.draw(real) for real in self.stream.batches(0, count, min(data.batch_size // data.chunks, count))
        )
        with self.log.pace.pause("statistics", every):
            self.averages.update_sampling_statistics((b.x, b.z, b.z_classes) for b in batches)

    def averaged_model(self) -> BigBiGAN:
        """Return the model to look at: averaged E and G beside D."""
        return averaged_model(self.model, self.averages)

    def draw_pictures(self) -> None:
        """Write the grids of samples and reconstructions, and send them to the trackers."""
        if not self.main:
            return
        with self.log.pace.pause("grids", self.config.run.sample_every):
            paths = draw_grids(self.averaged_model(), self.test_images, self.config, self.folder, self.clock.seen)
            if self.trackers is not None:
                self.trackers.pictures(paths, self.clock.seen)

    def write_page(self, stage: str) -> None:
        """Write the page of the run. stage: "training" or "stopped"; a failure is said once and ends nothing."""
        if not self.main:
            return
        try:
            self.page(self.folder, stage)
        except Exception as error:  # whatever it is: training is worth more than its page
            if not self.page_failed:
                again = "training goes on, and tries again" if stage == "training" else "nothing else is lost"
                log.warning("%s/report.html could not be written (%s); %s", self.folder, error, again)
            self.page_failed = True

    def close_trackers(self) -> None:
        """End the run in the trackers, if there are any."""
        if self.trackers is not None:
            self.trackers.close()

    def save(self) -> None:
        """Copy the state, unless a weight is not finite, and begin to write it as a checkpoint.

        The copy stays in host memory until it is written. Raises OSError if the write before failed.
        """
        with self.log.pace.pause("checkpoint", self.config.run.checkpoint_every or self.config.run.images):
            if self.main:
                self.writer.wait()
                where, keep = str(self.saved or "the beginning"), self.config.run.keep_checkpoints
                check_finite_weights(self.model, state_of=self.clock.seen, checkpoint=where)
                taken = checkpoint.snapshot(self.state, self.config)
                self.writer.start(partial(checkpoint.write, self.checkpoints, taken, keep))
            self.saved_at = self.clock.seen

    def settle(self) -> None:
        """Wait, on every process, until the checkpoint that is being written is complete. Raises OSError if it failed.

        Every process must call this: at the end of the run, and before checkpoints are read.
        """
        if self.main:
            self.writer.wait()
        barrier(self.device)

    def finish_writing(self) -> None:
        """Wait until the checkpoint that is being written is complete, where an error ends the run."""
        try:
            self.writer.wait()
        except OSError as error:
            log.warning("%s: the checkpoint that was being written is lost (%s)", self.checkpoints, error)

    def evaluate(self) -> None:
        """Evaluate on the main process, for which the others wait.

        A request to stop abandons the evaluation, and the next start repeats it.
        """
        with self.log.pace.pause("evaluation", self.config.run.evaluate_every):
            self.settle()  # the checkpoint may be the best one
            if self.main:
                self.stop.unless_asked(lambda: self.evaluation(self))
            barrier(self.device)


class Clock:
    """Counts the real images that a run has seen, and tells what is due."""

    def __init__(self, state: TrainingState, total: int):
        self.state, self.total = state, total
        self.before = 0  # images seen when the last iteration began

    @property
    def seen(self) -> int:
        """Real images seen by all updates so far."""
        return self.state.images_seen

    @property
    def last(self) -> int:
        """Real images of the last iteration."""
        return self.seen - self.before

    def advance(self, images: int) -> None:
        """Count an iteration of so many images."""
        self.before = self.state.images_seen
        self.state.images_seen += images
        self.state.iterations += 1

    def due(self, every: int) -> bool:
        """Whether the last iteration crossed a multiple of `every` images (0: never), or ended the run."""
        return bool(every) and (self.seen // every > self.before // every or self.seen >= self.total)


class Window:
    """The stream of real images from the state's place on, and sums of what iterations report until they are logged."""

    def __init__(self, stream: Stream, state: TrainingState):
        self.stream, self.state = stream, state
        self.size = 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def batches(self, size: int) -> Iterator[RealImages]:
        """Return the stream in batches of `size` images over all processes; another size than before reopens it."""
        if size != self.size:
            place = self.state.images_seen + self.state.recovery.images_skipped
            self.size, self.open = size, self.stream.batches(place, sys.maxsize, size)
        return self.open

    def add(self, values: dict[str, Tensor]) -> None:
        """Add what an iteration reports; not every iteration has every value (R1 at an interval)."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor]:
        """Return the mean of each value over the iterations that had it since the last call, and begin anew."""
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


def run_folder(config: Config) -> Path:
    """Return the folder of a run."""
    return expanded(config.run.root) / config.run.name
