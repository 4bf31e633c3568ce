"""Convert generators in BigGAN-PyTorch's layout, in which the weights of BigGAN and BigBiGAN's G are shared.

A file in that layout holds the weights, one singular vector of each, and the standing statistics. It has no settings:
sizes, factors and the place of attention follow from the shapes.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bigbigan.config import Model
from bigbigan.errors import ConversionError
from bigbigan.files import expanded
from bigbigan.model import BigBiGAN
from bigbigan.networks.generator import MULTIPLIERS, Generator
from bigbigan.networks.layers import batch_norms, spectral_layers
from bigbigan.networks.weights import load_weights
from bigbigan.release.format import check_place, write_release

EPS = 1e-4  # of our generator's batch norms
README = """---
library_name: bigbigan
tags: [bigbigan, gan]
---
# {name}

The generator of a BigGAN (Brock, Donahue & Simonyan, ICLR 2019), converted from a file of BigGAN-PyTorch by
`bigbigan-convert`. It has no encoder. How many images it has seen, of which data, is not in the file. {size} px
images{classes}.

```python
import bigbigan
images = bigbigan.generate(8, model="PATH OF THIS FOLDER")
```

Use it within the terms of the file and of the data it was trained on.
"""
UNUSED = re.compile(r"\.sv\d+$")  # singular values, kept for logging only


def load_biggan(path: str | Path, eps: float = 1e-4, last_eps: float | None = None) -> Generator:
    """Load a generator file of BigGAN-PyTorch (.pth or .safetensors) as our Generator, in evaluation mode.

    eps: of the batch norms. The file does not say it: it is 1e-4 in the published models, and 1e-5 in models that
    BigGAN-PyTorch trained with its defaults.
    last_eps: of the last batch norm, None for `eps`. BigGAN-PyTorch always has 1e-5 there, even for published models.
    Raises ConversionError.
    """
    path = expanded(path)
    try:
        tensors = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError:
        raise ConversionError(f"{path}: expected a file of weights, found none") from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConversionError(f"{path}: expected a file of tensors, found: {reason}") from None
    except Exception as error:  # the unpickler refuses contents that could run code
        raise ConversionError(
            f"{path}: expected tensors alone, found other objects ({type(error).__name__}); save its state_dict() again"
        ) from None
    return generator_from_biggan(tensors, eps, last_eps, str(path))


def convert_biggan(path: Path, folder: Path, eps: float = 1e-4, last_eps: float | None = None) -> BigBiGAN:
    """Write a generator file of BigGAN-PyTorch as a release of a generator alone, and return its model.

    A release has our eps of 1e-4 in every batch norm: the difference from `eps` and `last_eps`, see `load_biggan`, is
    added to the variances. Raises ConversionError.
    """
    check_place(folder)
    generator = load_biggan(path, eps, last_eps)
    for norm in batch_norms(generator):
        norm.running_var += norm.eps - EPS
        norm.eps = EPS
    table = generator.embedding
    config = Model(
        image_size=generator.image_size,
        latent_dim=generator.latent_dim,
        classes=generator.classes,
        generator_width=len(generator.norm.weight) // MULTIPLIERS[len(generator.blocks)][-1],
        generator_attention=generator.bottom * 2 ** (generator.attention_after + 1) if generator.attention else 0,
        embedding_dim=128 if table is None else table.embedding_dim,
        shared_embedding=table is not None,
        skip_z=generator.skip_z,
        encoder="none",
    )
    model = BigBiGAN(generator, None, None, config).eval()
    folder.parent.mkdir(parents=True, exist_ok=True)
    card = {"name": path.stem, "images_seen": 0, "seed": "unknown", "data": {"path": "unknown", "split": "train"}}
    classes = f", {config.classes} classes" if config.classes else ""
    write_release(
        folder, model, card, readme=README.format(name=path.stem, size=config.image_size, classes=classes)
    )  # fmt: skip
    return model


def generator_from_biggan(
    tensors: Mapping[str, Tensor], eps: float = 1e-4, last_eps: float | None = None, where: str = "the weights"
) -> Generator:
    """Convert a state dict of BigGAN-PyTorch's generator to our Generator. For eps see `load_biggan`."""
    if not isinstance(tensors, Mapping) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ConversionError(f"{where}: expected a state dict of tensors, found {type(tensors).__name__}")
    found = {k.removeprefix("module."): v for k, v in tensors.items() if not UNUSED.search(k)}
    settings = read_settings(found, where)
    chunk, tables = settings.pop("chunk"), not settings["shared_embedding"]
    if settings["classes"] == 0 and "shared.weight" in found:
        found["shared.weight"] = found["shared.weight"][:1]
    generator = Generator(**settings).to(found["linear.weight"].dtype)
    ours = dict(rename(key, value, chunk, tables) for key, value in found.items())
    missing = [f"{key}.u" for key, layer in generator.named_modules() if hasattr(layer, "u") and f"{key}.u" not in ours]
    if missing:
        raise ConversionError(
            f"{where}: expected a singular vector u0 of every layer, found none of {missing[0].removesuffix('.u')}"
        )
    ours |= {key: value for key, value in generator.state_dict().items() if key.endswith(".v")}
    try:
        load_weights(generator, ours, where)
    except ValueError as error:
        raise ConversionError(f"{error} (names are ours)") from None
    settle(generator)
    norms = [module for module in generator.modules() if hasattr(module, "eps")]
    for norm in norms:
        norm.eps = eps
    generator.norm.eps = eps if last_eps is None else last_eps
    return generator.eval()


def read_settings(found: Mapping[str, Tensor], where: str) -> dict:
    """Derive our Generator's arguments, and `chunk`, the size of each block's part of z, from names and shapes."""
    try:
        doublings = 1 + max(int(key.split(".")[1]) for key in found if key.startswith("blocks."))
        rows, first = found["linear.weight"].shape
        bottom = math.isqrt(rows // found["blocks.0.0.conv1.weight"].shape[1])
        condition = found["blocks.0.0.bn1.gain.weight"].shape[1]
        last = found[f"blocks.{doublings - 1}.0.conv2.weight"].shape[0]
        attention = [bottom * 2 ** (i + 1) for i in range(doublings) if f"blocks.{i}.1.theta.weight" in found]
        shared = "shared.weight" in found
        classes, embedding_dim = (found["shared.weight"] if shared else found["blocks.0.0.bn1.gain.weight"]).shape
    except (KeyError, ValueError, IndexError) as error:
        raise ConversionError(
            f"{where}: expected the layout of BigGAN-PyTorch's generator, found none of its {error}"
        ) from None
    if doublings not in MULTIPLIERS or len(attention) > 1:
        raise ConversionError(
            f"{where}: expected 1 to 7 blocks and one attention at most, found {doublings} and {len(attention)}"
        )
    chunk = condition - embedding_dim if shared else 0
    alike = shared and bool((found["shared.weight"] == found["shared.weight"][0]).all())
    return {
        "latent_dim": first + doublings * chunk,
        "image_size": bottom * 2**doublings,
        "width": last // MULTIPLIERS[doublings][-1],
        "classes": 0 if classes == 1 or alike else classes,  # one row, or one repeated to fill the table: no classes
        "embedding_dim": embedding_dim if shared else 1,
        "attention": attention[0] if attention else 0,
        "shared_embedding": shared,
        "skip_z": chunk > 0,
        "chunk": chunk,
    }


def rename(key: str, value: Tensor, chunk: int, tables: bool) -> tuple[str, Tensor]:
    """Convert one tensor to our name and layout.

    Our batch norms take the chunk of z before the class embedding, BigGAN-PyTorch's after it; our u has one axis.
    chunk: size of each block's part of z.  tables: whether each batch norm has its own table of classes.
    """
    if key.startswith("blocks."):
        _, i, j, rest = key.split(".", 3)
        key = f"blocks.{i}.{block_part(rest)}" if j == "0" else f"attention.{attention_part(rest)}"
    elif key == "shared.weight":
        key = "embedding.weight"
    elif key.startswith("output_layer.0."):
        key = "norm." + norm_part(key.removeprefix("output_layer.0."))
    elif key.startswith("output_layer.2."):
        key = "conv." + key.removeprefix("output_layer.2.")
    conditional = re.fullmatch(r"(.*norm\d\.)(gain|bias)\.weight", key)
    if conditional and tables:
        return f"{conditional[1]}class_{conditional[2]}.weight", value
    if conditional:
        embedding = value.shape[1] - chunk
        return key, torch.cat([value[:, embedding:], value[:, :embedding]], dim=1)
    return (key.removesuffix("u0") + "u", value.flatten()) if key.endswith(".u0") else (key, value)


def block_part(rest: str) -> str:
    """Return our name of a tensor in a residual block."""
    part, _, rest = rest.partition(".")
    if part == "conv_sc":
        return f"shortcut.{rest}"
    if not part.startswith("bn"):
        return f"{part}.{rest}"
    number = part.removeprefix("bn")
    return f"norm{number}.norm.{norm_part(rest)}" if rest.startswith("stored_") else f"norm{number}.{rest}"


def attention_part(rest: str) -> str:
    """Return our name of a tensor in the attention block."""
    part, _, rest = rest.partition(".")
    name = {"theta": "query", "phi": "key", "g": "value", "o": "output"}.get(part, part)
    return f"{name}.{rest}" if rest else name


def norm_part(name: str) -> str:
    """Return our name of a tensor in a batch norm."""
    return {"gain": "weight", "stored_mean": "running_mean", "stored_var": "running_var"}.get(name, name)


@torch.no_grad()
def settle(generator: Generator) -> None:
    """Compute v from u, then u from v, in every spectrally normalised layer.

    BigGAN-PyTorch stores u alone and computes σ at evaluation by this half-iteration.
    """
    for layer in spectral_layers(generator):
        weight = layer.weight.flatten(1)
        layer.v.copy_(F.normalize(weight.mT @ layer.u, dim=0, eps=1e-12))
        layer.u.copy_(F.normalize(weight @ layer.v, dim=0, eps=1e-12))
