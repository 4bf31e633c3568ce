"""The command `bigbigan-demo [MODEL] [--images PHOTOS]`: a page to play with a model, on this machine alone.

It answers --help at once, and loads torch only when there is something to do; `demo_page` is the page.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from bigbigan.config.bounds import NotNegative
from bigbigan.config.command import prepare_process
from bigbigan.config.parsing import parse_options
from bigbigan.errors import exit_with_a_sentence


@dataclass
class Demo:
    """Show a page to play with a model: reconstructions, neighbours, directions, samples."""

    model: tyro.conf.Positional[str] = "digits"
    """A run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the package."""
    images: str = ""
    """Images that neighbours are searched among: a folder, of which at most 2,000 images, spread evenly over it, are
    taken, or "digits". When empty: the digits for a model that was trained on them, else samples of the model."""
    port: NotNegative = 0
    """Port of the page; 0: 7860, or the next free one."""
    host: str = "127.0.0.1"
    """Address to listen on. The default can be reached from this machine alone."""
    device: str = ""
    """Device to compute on, such as cpu; a GPU if there is one when empty."""


def main(argv: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C; the exit status is 0, or that of an error."""
    with exit_with_a_sentence():
        options = parse_options(Demo, "bigbigan-demo", argv)
        prepare_process()
        import bigbigan
        from bigbigan.uses.demo_page import Player, build_page, gradio, serve

        gradio()
        model = bigbigan.load(options.model, options.device or None)
        page = build_page(Player(model, options.images), Path(options.model).name)
        serve(page, options.host, options.port, block=True)


if __name__ == "__main__":
    main()
