"""Compare `bigbigan.encode` with the bare network.

    python benchmarks/encode.py [--backbone resnetv2_50 --image_size 128 --images 64]

Timed in turn on the same images: the encoder's forward in batches, `encode` of a float tensor, `encode` of a folder of
JPEGs, and decoding that folder. Prints images a second and the share of the bare rate; then the cold start of a new
process (import, load, first image) and the largest mean difference of decoded pixels from torchvision's decoder.
Writes JSON with --out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import bigbigan
from benchmarks.rates import alternate, describe
from bigbigan.config import Model
from bigbigan.data.inputs import image_batches
from bigbigan.model import BigBiGAN

COLD = """
import resource, time; start = time.perf_counter()
import torch; torch_done = time.perf_counter()
{imports}; imported, used = time.perf_counter(), time.process_time()
model = {load}; loaded, loading = time.perf_counter(), time.process_time() - used
{first}; done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(torch_done - start, imported - torch_done, loaded - imported, done - loaded, done - start, loading, peak)
"""
COLUMNS = ("import torch", "import", "load", "first image", "total", "load, processor", "peak, GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnetv2_50")
    for name, value in (("image_size", 128), ("images", 64), ("batch_size", 16), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    device = torch.device(o.device)
    torch.manual_seed(0)
    config = Model(
        image_size=o.image_size, encoder=o.backbone, generator_width=8, discriminator_width=8, generator_attention=0,
        discriminator_attention=0, mlp_width=64, mlp_layers=2, encoder_mlp_width=64, encoder_mlp_layers=2,
    )  # fmt: skip
    model = BigBiGAN.from_config(config).to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        photos(folder / "photos", o.images, o.image_size)
        result = rates(model, folder / "photos", o, device)
        model.save_pretrained(folder / "release")
        result["cold_start_s"] = cold_start(folder, o.backbone, o.repeats)
        result["largest_pixel_difference"] = pixel_difference(folder / "photos", o.image_size)
    sizes = f"{o.image_size} px, batch {o.batch_size}, {o.images} images"
    print(f"{describe(device)}; {o.backbone}, {sizes}, best of {o.repeats}")
    bare = result["images_per_second"]["bare forward"]
    for name, rate in result["images_per_second"].items():
        print(f"{name:<26}{rate:10.1f} images/s   {100 * rate / bare:6.1f} % of the bare forward")
    if device.type == "cpu":  # decoding and computing share the cores, so no order of work could be faster than this
        both = 1 / (1 / bare + 1 / result["images_per_second"]["decoding the folder alone"])
        print(
            f"{'both, one after the other':<26}{both:10.1f} images/s   {100 * both / bare:6.1f} % of the bare forward"
        )
    for name, medians in result["cold_start_s"].items():
        said = ", ".join(f"{column} {value:.2f}" for column, value in medians.items())
        print(f"cold start, {name}, s, medians of {o.repeats} processes: {said}")
    largest = result["largest_pixel_difference"]
    print(f"decoded pixels against torchvision's: mean absolute difference at most {largest:.4f} / 255")
    if o.out:
        o.out.write_text(json.dumps(result, indent=2) + "\n")


def photos(folder: Path, count: int, size: int) -> None:
    """Write smooth random images with noise, as JPEGs somewhat larger than needed."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
            (size * 5 // 4, size), Image.BICUBIC
        )
        noisy = np.asarray(coarse).astype(int) + rng.integers(-12, 13, (size, size * 5 // 4, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:04d}.jpg", quality=90)


def rates(model: BigBiGAN, folder: Path, o: argparse.Namespace, device: torch.device) -> dict:
    x = torch.cat(list(image_batches(folder, o.image_size, o.batch_size)))
    ready = x.to(device)

    @torch.inference_mode()
    def bare():
        return [model.encoder.avepool(part) for part in ready.split(o.batch_size)]

    ways = {
        "bare forward": bare,
        "encode(tensor)": lambda: bigbigan.encode(
            x, model=model, outputs="avepool_feat", batch_size=o.batch_size, progress=False
        ),
        "encode(folder)": lambda: bigbigan.encode(
            folder, model=model, outputs="avepool_feat", batch_size=o.batch_size, progress=False
        ),
        "decoding the folder alone": lambda: list(image_batches(folder, o.image_size, o.batch_size)),
    }
    seconds = alternate(ways, device, o.repeats)
    return {
        "images_per_second": {name: len(x) / min(times) for name, times in seconds.items()},
        "median_images_per_second": {name: len(x) / statistics.median(times) for name, times in seconds.items()},
    }


def cold_start(folder: Path, backbone: str, repeats: int) -> dict[str, dict[str, float]]:
    """Load the release, its encoder alone, and the backbone by timm, in fresh processes that take turns; medians."""
    image, release, peer = next((folder / "photos").iterdir()), folder / "release", folder / "timm.safetensors"
    save_file(timm.create_model(backbone).state_dict(), peer)
    encode = f"bigbigan.encode({str(image)!r}, model=model, outputs='avepool_feat')"
    ours = {"imports": "import bigbigan.api", "first": encode}
    ways = {
        "the release": ours | {"load": f"bigbigan.load({str(release)!r})"},
        "its encoder": ours | {"load": f"bigbigan.load({str(release)!r}, parts=('encoder',))"},
        "timm": {
            "imports": "import timm",
            "load": f"timm.create_model({backbone!r}, checkpoint_path={str(peer)!r}).eval()",
            "first": "torch.inference_mode().__enter__(); model(torch.zeros(1, 3, 128, 128))",
        },
    }
    rows: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, parts in ways.items():
            command = [sys.executable, "-c", COLD.format(**parts)]
            root = Path(__file__).resolve().parent.parent
            out = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout
            rows[name].append(list(map(float, out.split())))
    return {
        name: dict(zip(COLUMNS, map(statistics.median, zip(*found, strict=True)), strict=True))
        for name, found in rows.items()
    }


def pixel_difference(folder: Path, size: int) -> float:
    """Largest mean absolute difference of a decoded image from torchvision's, in steps of 8 bits; no draft mode
    anywhere."""
    from torchvision.io import ImageReadMode, decode_image

    differences = []
    for path in sorted(folder.iterdir())[:16]:
        ours = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1).astype(int)
        theirs = decode_image(str(path), ImageReadMode.RGB).numpy().astype(int)
        differences.append(np.abs(ours - theirs).mean())
    return float(max(differences))


if __name__ == "__main__":
    main()
