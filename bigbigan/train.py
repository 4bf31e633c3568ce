"""Train a BigBiGAN: `accelerate launch bigbigan/train.py [--config NAME or PATH] [--section.field VALUE ...] [--dry-run]`.

The same command again resumes an interrupted run.
"""

import itertools
import logging
import sys
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
from torch import Tensor

import bigbigan
from bigbigan import checkpoint
from bigbigan.checkpoint import CheckpointError, TrainingState
from bigbigan.config import Config, ConfigError, find_config, flatten, parse, write_yaml
from bigbigan.data import Augment, DataError, Images, RealImages, Stream, evaluation_batches, open_images, to_signed
from bigbigan.ema import Averages, averaged_model
from bigbigan.guard import StopRequest, TrainingFailure, check_finite, check_finite_weights
from bigbigan.latents import normal_noise, sample_prior, uniforms
from bigbigan.launch import build_accelerator, decoders, revision
from bigbigan.layers import alone
from bigbigan.metrics.closing import reconstruction_figures
from bigbigan.model import BigBiGAN, load_weights
from bigbigan.monitor import Monitor
from bigbigan.release import adopt_architecture, card, write_readme, write_release
from bigbigan.report import closing_block, shapes_block, start_block, write_page
from bigbigan.step import Batch, Step, build_optimizers

PROBE_LIMIT = 200_000  # training images up to which the closing probe, on the CPU, is a matter of minutes
QUICK_LIMIT = 20_000  # training images up to which its other quick parts are a matter of seconds


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    config, options = parse(argv)
    try:
        status = Training(config, find_config(options.config)).run(dry=options.dry_run)
    except (ConfigError, DataError, CheckpointError, TrainingFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, TrainingFailure) else 2) from None
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
        self._check_classes()
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
            config.data.chunks, self.accelerator.autocast,
        )  # fmt: skip
        self.state = TrainingState(self.model, self.averages, {"discriminator": d_optimizer, "encoder_generator": eg_optimizer})
        self.stream = Stream(
            self.train_images, self.model.encoder.image_size, config.run.seed, Augment(config.data.augment, config.data.flip),
            self.accelerator.process_index, processes, decoders(config), self.accelerator.device,
            config.data.cache, config.data.cache_gib * 2**30, config.data.max_unreadable,
        )  # fmt: skip

    def run(self, dry: bool = False) -> int:
        """→ the exit status: 0 when the run is complete, 128 + signal when it was asked to stop."""
        resumed = checkpoint.resume(self.checkpoints, self.state, self.config)
        main = self.accelerator.is_main_process
        if main:
            print(self.start_text(resumed), flush=True)
        self.saved = resumed
        if dry:
            if main:
                print(shapes_block(self.model, self.accelerator.device), flush=True)
            return 0
        if main:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_yaml(self.config, self.folder / "config.yaml", f"bigbigan {bigbigan.__version__}, {revision()}")
        self.accelerator.init_trackers("bigbigan", {k: str(v) for k, v in flatten(self.config).items()})
        self.stop = StopRequest()
        self.monitor = Monitor(self.folder, self.state.images_seen, self.config.run.images, main, self.track())
        try:
            self.loop()
        finally:
            self.monitor.close()
            self.stop.restore()
        if self.state.images_seen < self.config.run.images:
            self.monitor.say(f"stopped at {self.state.images_seen:,} images; the same command goes on from {self.saved}")
            self.accelerator.end_training()
            return self.stop.status
        self.finish()
        return 0

    def loop(self) -> None:
        """D updates, one E+G update, averages; then whatever is due. All counts are in real images."""
        run, optim, batch_size = self.config.run, self.config.optim, self.config.data.batch_size
        state, step = self.state, self.step
        reals = self.stream.batches(state.images_seen, sys.maxsize, batch_size)
        sums: dict[str, Tensor] = {}
        since = 0
        while state.images_seen < run.images:
            before = state.images_seen
            for _ in range(optim.d_steps):
                scores = step.discriminator_update(self.batch(next(reals)))
            values = scores | step.encoder_generator_update(self.batch(next(reals)))
            state.images_seen += (optim.d_steps + 1) * batch_size
            state.iterations += 1
            self.averages.update(state.images_seen, state.images_seen - before)
            sums = {name: sums.get(name, 0) + value for name, value in values.items()}
            since += 1
            self.monitor.advance(state.images_seen)

            def due(every: int, before: int = before) -> bool:
                return state.images_seen // every > before // every or state.images_seen >= run.images

            if due(run.log_every):
                self.log({name: value / since for name, value in sums.items()})
                sums, since = {}, 0
            stopping = self.stop.agreed(self.accelerator.device)
            evaluating = bool(run.evaluate_every) and due(run.evaluate_every)
            looking, saving = due(run.sample_every), due(run.checkpoint_every) or stopping or (evaluating and bool(run.best))
            if looking or saving or evaluating:
                self.refresh()
            if looking:
                self.grids()
            if saving:
                self.save()
            if evaluating:
                self.evaluate()
            if stopping:
                return

    def batch(self, real: RealImages) -> Batch:
        """Real images and their share of the run's random numbers, on the device."""
        seed, device, places = self.config.run.seed, self.accelerator.device, real.positions
        width, classes = self.model.generator.latent_dim, self.config.model.classes
        z = sample_prior(self.config.model.prior, seed, "z", places, width)
        noise = normal_noise(seed, "posterior", places, width)
        x_classes = z_classes = None
        if classes:
            x_classes = real.labels
            z_classes = torch.from_numpy(uniforms(seed, "classes", places, 1)[:, 0] * classes).long().to(device)
        x = to_signed(real.x).contiguous(memory_format=torch.channels_last)
        return Batch(x, z.to(device), noise.to(device), x_classes, z_classes)

    def log(self, values: dict[str, Tensor]) -> None:
        stacked = self.accelerator.reduce(torch.stack([values[name].to(self.accelerator.device) for name in values]), "mean")
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
        self.accelerator.wait_for_everyone()

    def evaluate(self) -> None:
        """Quick figures of the averages, which the run does not feel; the best checkpoint by --run.best is kept."""
        if self.accelerator.is_main_process:
            from eval_linear.quick import better, chosen, quick_figures

            run, state = self.config.run, self.state
            with alone():
                model = averaged_model(self.model, self.averages)
                figures = quick_figures(
                    model, self.train_images, self.test_images, Path(self.config.data.path).name, run.evaluate_images, run.seed
                )
            self.monitor.figures(figures, state.images_seen, state.iterations)
            if run.best:
                name, folder = chosen(run.best, figures), self.folder / "best"
                if better(name, figures[name], checkpoint.best_value(folder, name)):
                    checkpoint.keep_best(folder, self.saved, name, figures[name])
        self.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """The release, the closing figures and the probe; from here on the main process works alone."""
        images_seen, main = self.state.images_seen, self.accelerator.is_main_process
        self.accelerator.end_training()
        if not main:
            return
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        model, about = averaged_model(self.model, self.averages), card(flatten(self.config), images_seen)
        write_release(self.folder / "release", model, about)
        figures = self.closing_figures()
        write_readme(self.folder / "release", model, figures or "not measured")
        labelled = self.train_images.labels is not None and self.test_images.labels is not None
        small = len(self.train_images) <= PROBE_LIMIT
        probed = self.probe() if self.config.run.probe and labelled and small else ""
        page = write_page(self.folder)
        print(f"{probed}\n{closing_block(self.folder, images_seen, figures, page)}", flush=True)

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

    def closing_figures(self) -> str:
        """Reconstruction of held-out images by the averages, beside its baseline."""
        model = averaged_model(self.model, self.averages)
        figures = reconstruction_figures(model, self.train_images, self.test_images)
        if not figures:
            return ""
        self.monitor.write({"images_seen": self.state.images_seen, "iteration": self.state.iterations} | figures)
        text = f"reconstruction error {figures['reconstruction_error_relative']:.3f} of random pairs (n = {figures['n_test']})"
        if "reconstruction_1nn_agreement" in figures:
            text += f"; {100 * figures['reconstruction_1nn_agreement']:.1f} % of them have their input's class by 1-NN"
        return text

    def probe(self) -> str:
        """The quick parts of the probe; `eval_linear/probe.py` by itself measures generation too, and more."""
        from eval_linear.probe import EXPECTED, Probe, run_probe

        parts = ("linear", "knn", "pairs") if len(self.train_images) <= QUICK_LIMIT else ("linear",)
        try:
            return run_probe(Probe(ckpt=str(self.folder), parts=parts, labels=(1.0,)))
        except EXPECTED as error:
            return f"no probe: {error}"

    def track(self):
        if not self.config.run.trackers:
            return None
        return lambda values, images_seen: self.accelerator.log(values, step=images_seen)

    def _check_classes(self) -> None:
        wanted, found = self.config.model.classes, self.train_images.class_names
        if wanted and self.test_images.labels is None:
            raise ConfigError(f"--model.classes {wanted}: expected labels in the test split too, found none; see --data.test_split")
        if wanted and (found is None or len(found) != wanted):
            raise ConfigError(
                f"--model.classes {wanted}: expected data with as many classes, found {len(found) if found else 'no labels'}"
            )


def open_split(config: Config, test: bool) -> Images:
    d = config.data
    return open_images(d.path, d.test_split if test else d.split, d.image_column, d.label_column, test, d.test_share, d.subset)


if __name__ == "__main__":
    main()
