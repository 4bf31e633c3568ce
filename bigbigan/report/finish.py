"""What a finished run leaves behind: its release, its closing figures, a first probe, its page."""

import logging
from collections.abc import Callable
from pathlib import Path

from bigbigan.config import flatten
from bigbigan.config.command import say
from bigbigan.data.classes import why_no_classes
from bigbigan.metrics.reconstruction import reconstruction_figures
from bigbigan.model import BigBiGAN
from bigbigan.release.card import worth
from bigbigan.release.format import changed_card, mark_card, write_readme, write_release
from bigbigan.release.load import card
from bigbigan.report import closing_block, read_lead, read_probe, write_page
from bigbigan.training import checkpoint
from bigbigan.training.trainer import Trainer
from eval_linear.result import Choice

PROBE_LIMIT = 200_000  # training images up to which the first probe, on the CPU, is a matter of minutes
QUICK_LIMIT = 20_000  # training images up to which its other quick parts are a matter of seconds
SMALL = 32  # px: side up to which a CPU trains a classifier of the data's own classes in seconds, and measures samples

log = logging.getLogger(__name__)


def finish(trainer: Trainer, probe: Callable[[Path, tuple[str, ...]], str]) -> None:
    """Write the release of averaged E and G, and the page of the run, and print what a person does next.

    probe: (run folder, parts of the probe) → its table.
    """
    folder, config, model = trainer.folder, trainer.config, trainer.averaged_model()
    release, edited = folder / "release", changed_card(folder / "release")
    write_release(release, model, card(flatten(config), trainer.state.images_seen), readme=edited)
    if edited:
        log.warning("%s: was edited and stays as it is; delete it to have it written anew", release / "README.md")
    else:
        mark_card(release)
    figures = closing_figures(trainer, model)
    if not edited:
        write_readme(release, model, figures or "not measured")
        mark_card(release)
    parts = probe_parts(trainer, model)
    table = probe(folder, parts) if parts else ""
    probed, _ = read_probe(folder)
    if not edited and probed.images_seen == trainer.state.images_seen:  # not one of an earlier, shorter run
        write_readme(release, model, figures or "below", worth(probed))
        mark_card(release)
    page = write_page(folder)
    best = best_checkpoint(folder / "best")
    closing = closing_block(folder, trainer.state.images_seen, read_lead(folder), page, best)
    say(f"{table}\n\n{closing}")


def best_checkpoint(folder: Path) -> str:
    """Return the checkpoint in the folder best/ of a run and what chose it, in words; "" if there is none."""
    for kept in reversed(checkpoint.complete(folder)):
        if note := checkpoint.choice(kept):
            return f"{kept}, {Choice(**note).words()}"
    return ""


def probe_parts(trainer: Trainer, model: BigBiGAN) -> tuple[str, ...]:
    """Return the parts of the probe that are quick enough for the end of this run: without labels, pairs alone."""
    config, train, test = trainer.config, trainer.train_images, trainer.test_images
    if not config.run.probe or len(train) > PROBE_LIMIT:
        return ()
    quick, labelled = len(train) <= QUICK_LIMIT, not why_no_classes(train, test)
    of_encoder = ("linear", "knn") if labelled and quick else ("linear",) if labelled else ()
    of_encoder += ("pairs",) * (quick and len(test) > 1 and (labelled or not config.model.classes))
    of_generator = ("generation",) * (quick and labelled and model.generator.image_size <= SMALL)
    of_generator += ("classes",) * bool(config.model.classes and labelled)
    return of_encoder * (model.encoder is not None) + of_generator


def closing_figures(trainer: Trainer, model: BigBiGAN) -> str:
    """Measure the reconstruction of held-out images, write it to stats.jsonl, and return a sentence, "" without E."""
    figures = reconstruction_figures(model, trainer.train_images, trainer.test_images)
    if not figures:
        return ""
    trainer.log.write("closing", figures, trainer.state.images_seen, trainer.state.iterations)
    error, n = figures["reconstruction_error_relative"], figures["n_test"]
    text = f"reconstruction error {error:.3f} of random pairs (n = {n})"
    if "reconstruction_1nn_agreement" in figures:
        kept = figures["reconstruction_1nn_agreement"]
        text += f"; {100 * kept:.1f} % of the reconstructions have their input's class by 1-NN"
        text += " (of the classes that both splits have)" if trainer.test_images.note else ""
    return text
