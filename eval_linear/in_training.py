"""Evaluation of a run in training: figures on its way, and a first probe at its end."""

import logging
from pathlib import Path

from bigbigan.distributed import local_only
from bigbigan.errors import BigBiGANError, ConfigError
from bigbigan.training import checkpoint
from bigbigan.training.trainer import Trainer
from eval_linear import quick

FIRST_SAMPLES = 5_000  # of G in the first probe: seconds on a CPU
log = logging.getLogger(__name__)


def evaluate(trainer: Trainer) -> None:
    """Write quick figures of the averaged networks, and keep the best checkpoint by `run.best`.

    They are measured on the training images that the run holds out for choices. The weights, statistics and random
    numbers of the run stay as they were.
    """
    run, seen = trainer.config.run, trainer.clock.seen
    name = Path(trainer.config.data.path).name
    try:
        with local_only():
            model, splits = trainer.averaged_model(), (trainer.train_images, trainer.held_out_images)
            figures = quick.quick_figures(model, *splits, name, run.evaluate_images, run.seed)
    except ValueError as error:  # such as too few images of a class; no reason to end the run
        log.warning("no figures at %s images: %s", f"{seen:,}", error)
        return
    if run.best:
        keep_best(trainer, figures)
    on = trainer.held_out_name
    trainer.log.evaluation(figures, seen, trainer.state.iterations, on)  # last: this line says that all of it was done


def keep_best(trainer: Trainer, figures: dict[str, float]) -> None:
    """Copy the newest checkpoint to best/ if its figure `run.best` is better than that of the one kept there."""
    try:
        name, folder = quick.chosen(trainer.config.run.best, figures), trainer.folder / "best"
    except ConfigError as error:  # a wrong name is no reason to end the run
        log.warning("no checkpoint is kept in best/: %s", error)
        return
    if quick.better(name, figures[name], checkpoint.best_value(folder, name)):
        of_samples = name.startswith(("fid", "is"))  # judged beside the training images, as published figures are
        chosen_on = "samples beside the training images" if of_samples else trainer.held_out_name
        checkpoint.keep_best(folder, trainer.saved, name, figures[name], chosen_on)


def first_probe(folder: Path, parts: tuple[str, ...]) -> str:
    """Probe the release of a finished run, quick parts only; return the table, or a sentence on why there is none."""
    from eval_linear.generation import Generation
    from eval_linear.probe import Probe, run_probe

    samples = Generation(images=FIRST_SAMPLES, quick=True)
    try:
        return run_probe(Probe(ckpt=str(folder), parts=parts, labels=(1.0,), generation=samples))
    except BigBiGANError as error:
        return f"no probe: {error}"
