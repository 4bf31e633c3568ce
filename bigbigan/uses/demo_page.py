"""Build and serve the page of `bigbigan-demo`, on which one plays with a model in the browser.

Drop an image on it to see its reconstruction G(E(x)), its nearest neighbours and how unusual it is. Sliders move a
latent along the directions in which G's image changes most. Samples are drawn with BigGAN's truncation.
The page needs no network: it listens on this machine only, has no share link, and loads nothing from elsewhere.
"""

import functools
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import bigbigan
from bigbigan.data.images import spread
from bigbigan.data.inputs import named_by
from bigbigan.errors import BigBiGANError, InputError
from bigbigan.latents import sample_prior
from bigbigan.model import BigBiGAN
from bigbigan.uses.anomalies import anomaly_scores
from bigbigan.uses.directions import strongest

SLIDERS = 6  # directions that have one
REACH = 3.0  # how far a slider moves, in standard deviations of the prior
GALLERY = 2000  # images that neighbours are searched among, at most; of more, so many that are spread over all
SHOWN = 8  # neighbours
WIDTH = 256  # pixels of a picture, at least
HEIGHT = 320  # of a picture's place on the page
MOVE = """## Move through the latents
The sliders move the latent of your image, or a random one, along the directions in which G's image changes most.
The unit is one standard deviation of p(z)."""
SAMPLES = """## Samples
Truncation draws components of z beyond the threshold anew: a small one gives more typical and less varied images.
0 is none."""


class Gallery:
    """Hold the images that an uploaded one is compared with.

    pictures: float (n, 3, S, S) in [−1, 1] at E's size.  features: (n, C), AvePool.  errors: (n,) sorted, their
    reconstruction errors ‖x − G(E(x))‖₁.  of: what the images are, for the page.
    """

    def __init__(self, model: BigBiGAN, images, of: str):
        self.pictures, self.of = bigbigan.as_tensor(images, model), of
        self.features = bigbigan.encode(self.pictures, model, "avepool_feat", value_range=(-1, 1), progress=False)
        self.errors = anomaly_scores(model, self.pictures, "reconstruction").total.sort().values

    def nearest(self, feature: Tensor, k: int = SHOWN) -> Tensor:
        """Return the k pictures whose features are nearest by cosine, nearest first. feature: (1, C)."""
        found = bigbigan.neighbours(feature, self.features, min(k, len(self.features)), "cosine")
        return self.pictures[found.indices[0]]

    def share_below(self, error: float) -> float:
        """Return the share of the gallery's images that are reconstructed better than an error says."""
        return float(torch.searchsorted(self.errors, torch.tensor(error).to(self.errors))) / len(self.errors)


class Player:
    """Answer the page's controls: hold a model, its gallery, and the directions of its sliders."""

    def __init__(self, model: BigBiGAN, images: str = ""):
        self.model = model
        for name in ("encoder", "generator"):
            model.require(name)
        if model.classes:
            raise InputError("model: expected one without classes for the page, found a conditional one")
        pictures, of = _gallery_images(model, images)
        self.gallery = Gallery(model, pictures, of)
        self.directions = strongest(model, SLIDERS).vectors.cpu()

    def look_at(self, picture: Image.Image | None) -> tuple[Image.Image | None, Image.Image | None, str, Tensor]:
        """Return an image's reconstruction, its neighbours as one sheet, a sentence, and its latent (1, Z)."""
        if picture is None:
            return None, None, "", self.start(0)
        found = bigbigan.encode(picture, self.model, ("avepool_feat", "z_mean"))
        again = bigbigan.generate(found["z_mean"], self.model)
        x = bigbigan.as_tensor(picture, self.model)
        error = float(anomaly_scores(self.model, x, "reconstruction").total[0])
        near = self.gallery.nearest(found["avepool_feat"])
        share = self.gallery.share_below(error)
        said = (
            f"**Anomaly score {error:.1f}**: ‖x − G(E(x))‖₁, the reconstruction error summed over all pixels. "
            f"{share:.0%} of the images that are searched for neighbours are reconstructed better."
        )
        return enlarged(again), enlarged(near, columns=SHOWN // 2), said, found["z_mean"]

    def start(self, seed: int) -> Tensor:
        """Return a latent (1, Z) of the prior."""
        width = self.model.generator.latent_dim
        return sample_prior(self.model.prior, int(seed), "demo", np.arange(1), width)

    def move(self, z: Tensor, *amounts: float) -> Image.Image:
        """Return the image of a latent that was moved along the directions. z: (1, Z).  amounts: of the first ones."""
        shift = torch.tensor(amounts, dtype=torch.float32) @ self.directions[: len(amounts)]
        return enlarged(bigbigan.generate(z + shift, self.model))

    def samples(self, threshold: float, seed: int, count: int = 16) -> Image.Image:
        """Return a sheet of samples. threshold: of the truncation; 0 for none."""
        return enlarged(bigbigan.generate(count, self.model, threshold or None, seed=int(seed)), columns=4)


def _gallery_images(model: BigBiGAN, images: str):
    """Return (images, what they are) for the gallery. images: as the setting."""
    if images == "digits" or (not images and (model.card or {}).get("data", {}).get("path") == "digits"):
        from sklearn.datasets import load_digits

        pixels = torch.from_numpy(load_digits().images).float()[:, None].expand(-1, 3, -1, -1) / 8 - 1
        return pixels, "scikit-learn's digits"
    if images:
        found, name = named_by(images), Path(images).name
        places = spread(len(found), GALLERY)
        part = f"{len(places):,} of " if len(places) < len(found) else ""
        return (found[i] for i in places), f"{part}the {len(found):,} images of {name}"
    return bigbigan.generate(256, model), "the model's own samples"


def enlarged(images: Tensor, columns: int | None = None) -> Image.Image:
    """Return images (N, 3, S, S) as one sheet whose pixels are whole, so that small ones can be seen."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    return bigbigan.grid(images, columns, max(1, math.ceil(WIDTH / (columns * images.shape[-1]))))


def build_page(player: Player, name: str):
    """Return the page, a `gradio.Blocks`. name: of the model, for its title."""
    gr = gradio()

    def guarded(call):
        """Show our errors on the page as their sentence."""

        @functools.wraps(call)
        def wrapped(*arguments):
            try:
                return call(*arguments)
            except BigBiGANError as error:
                raise gr.Error(str(error), duration=None) from None

        return wrapped

    def picture(heading: str, value=None, **options):
        """Add a picture under its heading: a label of gradio's would cover a part of it."""
        gr.Markdown(f"**{heading}**")
        fixed = {"type": "pil", "show_label": False, "height": HEIGHT, "alt_text": heading}
        return gr.Image(value, **fixed | {"format": "png", "interactive": False, "buttons": []} | options)

    prior_can_be_cut = player.model.prior == "normal"
    with gr.Blocks(title=f"BigBiGAN: {name}", analytics_enabled=False) as page:
        latent = gr.State(player.start(0))
        gr.Markdown(f"# BigBiGAN: {name}")
        with gr.Row():
            with gr.Column(min_width=280):
                given = picture(
                    "An image x: drop or choose one", sources=["upload", "clipboard"], elem_id="given", interactive=True
                )
            with gr.Column(min_width=280):
                kept = picture("Its reconstruction G(E(x))", elem_id="kept")
            with gr.Column(min_width=280):
                near = picture(f"Its neighbours among {player.gallery.of}", elem_id="near")
        said = gr.Markdown(elem_id="said")
        gr.Markdown(MOVE)
        with gr.Row():
            with gr.Column(min_width=280):
                moved = picture("G(z)", player.move(player.start(0)), elem_id="moved")
                again = gr.Button("Another random latent", elem_id="again")
            with gr.Column(min_width=280):
                sliders = [
                    gr.Slider(-REACH, REACH, 0, step=0.1, label=f"direction {i + 1}", elem_id=f"direction{i + 1}")
                    for i in range(len(player.directions))
                ]
        gr.Markdown(SAMPLES)
        with gr.Row():
            with gr.Column(min_width=280):
                cut = gr.Slider(0, 2, 0, step=0.1, label="truncation", interactive=prior_can_be_cut, elem_id="cut")
                seed = gr.Number(0, label="seed", precision=0, minimum=0, elem_id="seed")
                draw = gr.Button("Draw others", elem_id="draw")
            with gr.Column(min_width=280):
                drawn = picture("Samples G(z), z ~ p(z)", player.samples(0, 0), elem_id="drawn")

        def looked(x):
            again_x, sheet, words, z = player.look_at(x)
            return again_x, sheet, words, z, player.move(z), *([0] * len(sliders))

        def other():
            z = player.start(np.random.randint(2**31))
            return z, player.move(z), *([0] * len(sliders))

        given.change(guarded(looked), given, [kept, near, said, latent, moved, *sliders])
        again.click(other, None, [latent, moved, *sliders])
        for slider in sliders:
            slider.input(player.move, [latent, *sliders], moved, show_progress="hidden", trigger_mode="always_last")
        for control in (cut, seed):
            control.change(player.samples, [cut, seed], drawn, show_progress="hidden", trigger_mode="always_last")
        draw.click(lambda n: (n or 0) + 1, seed, seed)
    return page


def gradio():
    """Return the module `gradio`, set to send nothing over the network. Raises InputError where it is not installed."""
    import os

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio as gr
    except ImportError:
        raise InputError('bigbigan-demo: expected gradio to be installed; pip install "bigbigan[demo]"') from None
    return gr


def serve(page, host: str, port: int, block: bool = False) -> str:
    """Serve a page and return its address. port: as the setting.  block: wait for Ctrl-C."""
    theme = gradio().themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    _, address, _ = page.launch(
        server_name=host, server_port=port or None, share=False, quiet=True, inbrowser=False, prevent_thread_lock=True,
        theme=theme, footer_links=[], enable_monitoring=False, ssr_mode=False,
    )  # fmt: skip
    print(f"open {address} in a browser; Ctrl-C ends it", file=sys.stderr, flush=True)
    if block:
        page.block_thread()
    return address
