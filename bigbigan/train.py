"""Train a BigBiGAN.

    bigbigan-train [--config NAME or PATH] [--section.field VALUE ...] [--dry-run]

The same command again resumes an interrupted run.
"""

import logging
import sys
import time
from functools import partial
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bigbigan.config import find_config, parse, preset_name
from bigbigan.config.command import prepare_process
from bigbigan.errors import DataError, LostProcess, exit_with_a_sentence
from bigbigan.training.processes import run_processes, without_option


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says; the exit status is 0, or that of a stop or an error (docs/launching.md)."""
    started, begun = time.monotonic(), []
    argv = sys.argv[1:] if argv is None else argv
    with exit_with_a_sentence(partial(resume_hint, begun)):
        prepare_process()
        config, options = parse(argv)
        if options.processes > 1:
            status = run_processes(Path(__file__), options.processes, without_option(argv, "--processes"))
        else:
            status = train(config, options, started, begun)
    if status:
        raise SystemExit(status)


def train(config, options, started: float, begun: list) -> int:
    """Train in this process and return the exit status. begun: gets the trainer, for the sentence on an error."""
    from bigbigan.release.load import adopt_architecture  # torch is imported here, after the threads' setting
    from bigbigan.report import write_page
    from bigbigan.report.finish import finish
    from bigbigan.training.launch import build_accelerator
    from bigbigan.training.own_images import choose_settings
    from bigbigan.training.trainer import Trainer, run_folder
    from eval_linear.in_training import evaluate, first_probe

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    folder, preset = run_folder(config), preset_name(find_config(options.config))
    accelerator, checkpoints = build_accelerator(config, folder), folder / "checkpoints"
    trainer = Trainer(
        config,
        preset,
        accelerator,
        initial=adopt_architecture(config, checkpoints, options.flags),
        images=choose_settings(config, options.given, checkpoints, accelerator),
        flags=options.flags,
        started=started,
        evaluate=evaluate,
        page=write_page,
        finish=lambda done: finish(done, first_probe),
    )
    begun.append(trainer)
    return trainer.run(dry=options.dry_run)


def resume_hint(begun: list, error: BaseException) -> str:
    """Return the suffix for an error message: where the same command resumes from; empty before training starts."""
    if isinstance(error, LostProcess | KeyboardInterrupt):
        return "; the same command goes on from the newest checkpoint, or from the beginning without one"
    if isinstance(error, DataError | OSError) and begun and begun[0].begun:
        return f"; when that is mended, the same command goes on from {begun[0].saved or 'the beginning'}"
    return ""


if __name__ == "__main__":
    main()
