"""What a finished run leaves behind: its release, its closing figures, a first probe, its page."""

from collections.abc import Callable
from pathlib import Path

from bigbigan.config import Config, flatten
from bigbigan.data import Images
from bigbigan.metrics.reconstruction import reconstruction_figures
from bigbigan.model import BigBiGAN
from bigbigan.release.format import write_readme, write_release
from bigbigan.release.load import card
from bigbigan.report import closing_block, write_page
from bigbigan.training.checkpoint import TrainingState
from bigbigan.training.log import Monitor

PROBE_LIMIT = 200_000  # training images up to which the closing probe, on the CPU, is a matter of minutes
QUICK_LIMIT = 20_000  # training images up to which its other quick parts are a matter of seconds


def close(
    folder: Path,
    model: BigBiGAN,
    config: Config,
    train: Images,
    test: Images,
    state: TrainingState,
    monitor: Monitor,
    probe: Callable[[tuple[str, ...]], str],
) -> None:
    """Write the release of `model` (averaged E and G) and the page of the run, and print what a person does next.

    probe: a function of parts of the probe → its table.
    """
    write_release(folder / "release", model, card(flatten(config), state.images_seen))
    figures = closing_figures(model, train, test, state, monitor)
    write_readme(folder / "release", model, figures or "not measured")
    labelled = train.labels is not None and test.labels is not None
    parts = ("linear", "knn", "pairs") if len(train) <= QUICK_LIMIT else ("linear",)
    parts = parts * (model.encoder is not None) + ("classes",) * bool(config.model.classes)
    probed = probe(parts) if config.run.probe and labelled and parts and len(train) <= PROBE_LIMIT else ""
    page = write_page(folder)
    print(f"{probed}\n{closing_block(folder, state.images_seen, figures, page)}", flush=True)


def closing_figures(model: BigBiGAN, train: Images, test: Images, state: TrainingState, monitor: Monitor) -> str:
    """Reconstruction of held-out images by the averages, beside its baseline: to stats.jsonl, and as a sentence."""
    figures = reconstruction_figures(model, train, test)
    if not figures:
        return ""
    monitor.write({"images_seen": state.images_seen, "iteration": state.iterations} | figures)
    text = (
        f"reconstruction error {figures['reconstruction_error_relative']:.3f} of random pairs (n = {figures['n_test']})"
    )
    if "reconstruction_1nn_agreement" in figures:
        text += f"; {100 * figures['reconstruction_1nn_agreement']:.1f} % of them have their input's class by 1-NN"
    return text
