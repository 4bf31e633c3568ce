"""Train a BigBiGAN.

    accelerate launch bigbigan/train.py [--config NAME or PATH] [--section.field VALUE ...] [--dry-run]

The same command again resumes an interrupted run.
"""

import logging
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bigbigan.config import find_config, parse, preset_name
from bigbigan.errors import DataError, LostProcess, exit_with_a_sentence
from bigbigan.release.load import adopt_architecture
from bigbigan.report import write_page
from bigbigan.report.finish import finish
from bigbigan.training.launch import build_accelerator
from bigbigan.training.own_images import choose_settings
from bigbigan.training.trainer import Trainer, run_folder


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says; the exit status is 0, or that of a stop or an error (docs/launching.md)."""
    started, trainer = time.monotonic(), None
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    config, options = parse(argv)
    from eval_linear.in_training import evaluate, first_probe  # not before --help is answered

    with exit_with_a_sentence(lambda error: resume_hint(error, trainer)):
        accelerator, checkpoints = build_accelerator(config, run_folder(config)), run_folder(config) / "checkpoints"
        trainer = Trainer(
            config,
            preset_name(find_config(options.config)),
            accelerator,
            initial=adopt_architecture(config, checkpoints, options.flags),
            images=choose_settings(config, options.given, checkpoints, accelerator),
            started=started,
            evaluate=evaluate,
            page=write_page,
            finish=lambda done: finish(done, first_probe),
        )
        if status := trainer.run(dry=options.dry_run):
            raise SystemExit(status)


def resume_hint(error: BaseException, trainer: Trainer | None) -> str:
    """Return the suffix for an error message: where the same command resumes from; empty before training starts."""
    if isinstance(error, LostProcess | KeyboardInterrupt):
        return "; the same command goes on from the newest checkpoint"
    if isinstance(error, DataError | OSError) and trainer is not None and trainer.begun:
        return f"; the same command goes on from {trainer.saved or 'the beginning'}"
    return ""


if __name__ == "__main__":
    main()
