"""Write the features of a whole data set to Parquet files: `bigbigan-extract CKPT --data.path PATH --out FOLDER`.

The same command again goes on where it was stopped; several processes share the work.
"""

import logging
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import tyro

from bigbigan.config import ImagesGiven
from bigbigan.config.bounds import AtLeastOne, NotNegative, Share, check_numbers
from bigbigan.config.cli import check_flags
from bigbigan.config.command import prepare_process, print_and_leave, say
from bigbigan.config.comparison import flatten
from bigbigan.config.help import columns
from bigbigan.config.parsing import parse_options
from bigbigan.errors import FeatureError, exit_with_a_sentence
from bigbigan.files import counted, expanded, printable
from bigbigan.training.processes import run_processes, without_option

STOPPED = 75  # exit status after SIGTERM: run it again (EX_TEMPFAIL of sysexits)
NEXT = "the same command goes on"
SETTINGS = (
    ("--data.path PATH", "images: a folder, Parquet or Arrow files, tars, or a hub name, as in training"),
    ("--out FOLDER", "where the Parquet files go"),
    ("--outputs z_mean avepool_feat", "some of z_mean, z_stdev, avepool_feat, bn_crelu_feat"),
    ("--dtype float32", "or float16, half the size"),
    ("--data.split train", "split to take, where the data have splits; without splits all images are taken"),
    ("--data.batch_size 64", "images encoded at once"),
    ("--data.max_unreadable 0.01", "share of unreadable images above which it ends; the others are skipped and listed"),
    ("--shard_images N", "images of a file; a hundredth of all, from 250 to 5000, if not given"),
    ("--processes N", "work with N processes on this machine, one for each GPU"),
    ("--device DEVICE", "cuda, cpu, ...; a GPU if there is one"),
    ("--help-all", "all settings with their reasons"),
)
EXAMPLES = (
    ("bigbigan-extract runs/photos --data.path PHOTOS --out features", "of a folder"),
    ('bigbigan-extract OWNER/NAME --data.path "{0000..0099}.tar" --out features', "of tars, by a model of the hub"),
)
HELP = "\n".join(
    [
        "Write the features of a whole data set to Parquet files. The same command again goes on where it stopped.\n",
        "  bigbigan-extract CKPT --data.path PATH --out FOLDER [--field VALUE ...]\n",
        "CKPT: a run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the",
        "package.\n",
        *columns(SETTINGS, 32),
        "\nExamples:\n",
        *columns(EXAMPLES, 78),
    ]
)
Output = Literal["z_mean", "z_stdev", "avepool_feat", "bn_crelu_feat"]


@dataclass
class ExtractData(ImagesGiven):
    """Name the images."""

    split: str = ""
    """Split to take, "train" if empty; "all" takes a folder's images whatever split they are of."""
    batch_size: AtLeastOne = 64
    """Images encoded at once. Another number may change the last bit of a feature."""
    max_unreadable: Share = 0.01
    """Share of unreadable images above which the command ends; each process counts its own."""


@dataclass
class Extract:
    """Write the features of a whole data set to Parquet files. The same command again goes on where it stopped."""

    ckpt: tyro.conf.Positional[str]
    """A run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the package."""
    data: ExtractData = field(default_factory=ExtractData)
    out: str = ""
    """Folder of the Parquet files; created if it is not there."""
    outputs: tuple[Output, ...] = ("z_mean", "avepool_feat")
    """Features to keep, a column each."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the features in the files; they are computed in float32."""
    shard_images: NotNegative = 0
    """Images of a file, and so what a kill may lose; 0: a hundredth of all, from 250 to 5,000."""
    processes: NotNegative = 0
    """Processes on this machine; 0 or 1: this one alone, or those that another launcher has started."""
    device: str = ""
    """Where to compute; a GPU if there is one, else the CPU, when empty."""

    def validate(self) -> None:
        """Raise FeatureError or ConfigError for settings that cannot be."""
        check_numbers(self)
        if not self.out:
            raise FeatureError("--out: expected a folder for the Parquet files, found nothing")
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise FeatureError(f"--outputs {' '.join(self.outputs)}: expected one or more, each once")


def main(argv: list[str] | None = None) -> None:
    """Extract as the command line says; the exit status is 0, 75 after SIGTERM, 130 after Ctrl-C, or an error's."""
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        print_and_leave(HELP)
    with exit_with_a_sentence(resume_hint):
        prepare_process()
        check_flags(
            [flag for flag in argv if flag != "--help-all"], list(flatten(Extract(""))), ("--help", "--help-all")
        )
        arguments = ["--help"] if "--help-all" in argv else argv
        options = parse_options(Extract, "bigbigan-extract", arguments)
        options.validate()
        if options.processes > 1:
            status = run_processes(Path(__file__), options.processes, without_option(argv, "--processes"), NEXT)
            if status:
                raise SystemExit(status)
        else:
            extract(options)


def resume_hint(error: BaseException) -> str:
    """Return the suffix for an error message: when the same command goes on."""
    if isinstance(error, KeyboardInterrupt):
        return f"; {NEXT}"
    return f"; when that is mended, {NEXT}" if isinstance(error, OSError) else ""


def extract(options: Extract) -> None:
    """Do this process's share of the work, and print what was done once nothing is missing."""
    signal.signal(signal.SIGTERM, _stop)
    import torch  # after the threads' setting

    from bigbigan.api import load
    from bigbigan.distributed import cores
    from bigbigan.features import extraction, shards
    from bigbigan.training.launch import check_gpus

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        torch.set_num_threads(min(torch.get_num_threads(), cores()))
    device = options.device
    if not device and processes > 1 and torch.cuda.is_available():
        check_gpus()
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    model = load(options.ckpt, device or None, parts=("encoder",))
    images, path, alone = open_data(options.data, model.card or {})
    folder = expanded(options.out)
    manifest = extraction.manifest_of(
        model, images, options.outputs, options.dtype, options.shard_images, (options.ckpt, path)
    )
    shards.begin(folder, manifest)
    if rank == 0:
        say(f"{images.summary()} → {printable(folder)}, {counted(manifest.shards, 'file')}{alone}")
    work = extraction.Extraction(
        model,
        images,
        folder,
        manifest,
        batch_size=options.data.batch_size,
        rank=rank,
        processes=processes,
        max_unreadable=options.data.max_unreadable,
    )
    broken = work.run()
    if broken is not None:  # this process was the last one
        listed = f"; {broken:,} could not be read, see {printable(folder / shards.UNREADABLE)}" if broken else ""
        say(f"done: features of {counted(manifest.images - broken)} in {printable(folder)}{listed}")


def open_data(data: ExtractData, card: dict):
    """Return the images that the settings name, or those that the model was trained on, their path, and a remark.

    The remark says which split they are of, if the data have others that nobody asked about.
    card: what the model says of its training.  Raises FeatureError or DataError.
    """
    from bigbigan.data import data_of_model, open_whole_split

    if data.group_column:
        raise FeatureError("--data.group_column: expected none, since no image is held out here; leave it out")
    settings = data_of_model(data, card, others=True)
    settings.group_column = ""
    if not settings.path:
        raise FeatureError("expected --data.path, since the model does not say what it was trained on")
    found = open_whole_split(settings)
    alone = f"; of the split {printable(settings.split)} alone, --data.split takes another one"
    return found.images, settings.path, "" if found.whole or data.split else alone


def _stop(_signal: int, _frame) -> None:
    """End with status 75 at SIGTERM: the file at hand is lost, those before it are there."""
    if os.environ.get("RANK", "0") == "0":
        print(f"stopped; {NEXT}", file=sys.stderr)
    raise SystemExit(STOPPED)


if __name__ == "__main__":
    main()
