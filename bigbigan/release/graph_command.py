"""The command `bigbigan-export`: answers --help at once, and loads torch only when there is something to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from bigbigan.config.command import prepare_process, say
from bigbigan.config.parsing import parse_options
from bigbigan.errors import exit_with_a_sentence


@dataclass
class GraphExport:
    """Write an encoder as one file that runs without this library, by onnxruntime or by torch.

    The file is compared with the model before it is kept.
    """

    model: tyro.conf.Positional[str]
    """A run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the package."""
    out: tyro.conf.Positional[Path]
    """The file to write: NAME.onnx, or NAME.pt2 for torch."""
    format: Literal["onnx", "torch"] = "onnx"
    """onnx needs `pip install "bigbigan[onnx]"`; torch writes what torch.export.load reads."""
    outputs: tuple[Literal["avepool_feat", "z_mean", "z_stdev", "bn_crelu_feat"], ...] = ("avepool_feat", "z_mean")
    """What the file computes, named and shaped as `bigbigan.encode` returns it."""
    uint8: bool = False
    """True: it takes uint8 images, 0 … 255; False: float32 in [−1, 1]. Of the encoder's size in both cases."""


def main(argv: list[str] | None = None) -> None:
    """Export as the command line says; the exit status is 0, or that of an error."""
    with exit_with_a_sentence():
        prepare_process()
        options = parse_options(GraphExport, "bigbigan-export", argv)
        from bigbigan.release.graph import export_graph
        from bigbigan.release.load import load_model

        say(
            export_graph(
                load_model(options.model), options.out, options.format, outputs=options.outputs, uint8=options.uint8
            )
        )
