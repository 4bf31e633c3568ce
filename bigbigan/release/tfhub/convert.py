"""Convert a BigBiGAN module of TensorFlow Hub to a release, and compare the two on random images and latents."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bigbigan.config import Model, check_model
from bigbigan.errors import ConversionError
from bigbigan.files import printable, sha256
from bigbigan.model import BigBiGAN
from bigbigan.networks.weights import load_weights
from bigbigan.release.format import write_release
from bigbigan.release.tfhub.checkpoint import Checkpoint
from bigbigan.release.tfhub.follow import Follower, follow_discriminator, follow_encoder, follow_generator
from bigbigan.release.tfhub.interpreter import VALUE, Interpreter, key
from bigbigan.release.tfhub.layers import Layers
from bigbigan.release.tfhub.saved_model import SavedModel, Signature, read_saved_model
from bigbigan.release.tfhub.weights import Weights

INPUTS = {"generate": ("z",), "encode": ("x",), "discriminate": ("x", "z")}
OUTPUTS = {
    "generate": ("default",),
    "encode": ("z_mean", "z_stdev", "avepool_feat", "bn_crelu_feat"),
    "discriminate": ("score_x", "score_z", "score_xz"),
}
PAIRS = 2  # images and latents that the two are compared on
LARGEST = 1e-4  # difference allowed, relative to the largest value of an output
README = """---
library_name: bigbigan
tags: [bigbigan, gan, representation-learning, unconditional-image-generation]
---
# {name}

A BigBiGAN (Donahue & Simonyan, NeurIPS 2019), converted from the TensorFlow Hub module `{name}` by `bigbigan-convert`.
How many images it has seen, of which data, is not in the module. {size} px images; the encoder sees {encoder_size} px.

```python
import bigbigan
features = bigbigan.encode(images, model="PATH OF THIS FOLDER", outputs="avepool_feat")
```

`conversion.txt` says where each variable of the module went, and how far this model's outputs are from the module's.
Use it within the terms of the module and of the data it was trained on.
"""


@dataclass
class Conversion:
    """A converted module.

    model: in evaluation mode.  feeds: random inputs, by signature and input name; images are (N, H, W, C).
    differences: of our model's outputs from those computed by our reading of the graph.
    used: variable → our module.  unused: variables that no signature reads.  notes: sentences on what differs.
    """

    model: BigBiGAN
    feeds: dict[str, dict[str, Tensor]]
    differences: dict[str, "Difference"]
    used: dict[str, str]
    unused: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Difference:
    """The largest difference of an output, and the largest value of that output in the module."""

    largest: float
    scale: float

    @property
    def relative(self) -> float:
        return self.largest / self.scale if self.scale else self.largest

    def __str__(self) -> str:
        return f"{self.largest:.2g} of values up to {self.scale:.3g}"


def convert_module(folder: Path, seed: int = 0) -> Conversion:
    """Convert the module in a folder to our model. Raises ConversionError if anything does not fit.

    The module's graph is also computed, on `PAIRS` random images and latents, by our reading of its operations; every
    output of our model must equal it.
    """
    if not folder.is_dir():
        raise ConversionError(f"{printable(folder)}: expected the folder of a hub module, found none")
    saved = read_saved_model(folder / "saved_model.pb")
    signatures = _signatures(saved, folder)
    graph = Interpreter(saved.nodes, Checkpoint(folder / "variables" / "variables"))
    try:
        return _convert(graph, signatures, seed)
    except ConversionError as error:
        raise ConversionError(f"{printable(folder)}: {error}") from None
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConversionError(
            f"{printable(folder)}: expected the graph of a BigBiGAN, found one that cannot be followed "
            f"({type(error).__name__}: {error})"
        ) from error


def _convert(graph: Interpreter, signatures: dict[str, Signature], seed: int) -> Conversion:
    feeds = _random_inputs(graph, signatures, seed)
    shapes: dict[str, tuple[int, ...]] = {}

    def note(tensor: str, value: Tensor) -> None:
        shapes[tensor] = tuple(value.shape)

    for name, signature in signatures.items():
        inputs = {signature.inputs[i]: value for i, value in feeds[name].items()}
        shapes |= {key(tensor): tuple(value.shape) for tensor, value in inputs.items()}
        graph.run(_outputs(signature, name), inputs, note)
    weights = Weights(graph)
    follower = Follower(Layers(graph, shapes), weights)
    settings = follow_generator(follower, signatures["generate"])
    settings |= follow_discriminator(follower, signatures["discriminate"])
    settings |= follow_encoder(follower, signatures["encode"])
    read = set(graph.leaves(*[t for name, s in signatures.items() for t in _outputs(s, name)]))
    left = sorted(read - weights.used.keys())
    if left:
        raise ConversionError(f"variable {left[0]}: expected a place for it, found none ({len(left)} such variables)")
    model = _build(settings, weights.tensors)
    unused = [name for name in graph.checkpoint if name not in weights.used]
    differences = _compare(model, graph, signatures, feeds, weights.places)
    return Conversion(model, feeds, differences, weights.used, unused, weights.notes())


def _outputs(signature: Signature, name: str) -> list[str]:
    return [signature.outputs[output] for output in OUTPUTS[name]]


def _signatures(saved: SavedModel, folder: Path) -> dict[str, Signature]:
    """Return the three signatures of a BigBiGAN. Raises ConversionError if one lacks an input or output."""
    for name in INPUTS:
        if name not in saved.signatures:
            raise ConversionError(
                f"{printable(folder)}: expected the signatures {', '.join(INPUTS)} of a BigBiGAN module, found "
                f"{', '.join(sorted(saved.signatures)) or 'none'}"
            )
    found = {name: _with_usual_names(name, saved.signatures[name]) for name in INPUTS}
    for name, signature in found.items():
        for side, wanted, given in (
            ("input", INPUTS[name], signature.inputs), ("output", OUTPUTS[name], signature.outputs)
        ):  # fmt: skip
            lacking = [one for one in wanted if one not in given]
            if lacking:
                raise ConversionError(
                    f"{printable(folder)}: expected the {side} {lacking[0]} in the signature {name}, found "
                    f"{', '.join(sorted(given))}"
                )
    return found


def _with_usual_names(name: str, signature: Signature) -> Signature:
    """Return a signature of one input under its usual name; hub modules call a single input "default" too."""
    if len(INPUTS[name]) == 1 and len(signature.inputs) == 1:
        return dataclasses.replace(signature, inputs=dict(zip(INPUTS[name], signature.inputs.values(), strict=True)))
    return signature


def _random_inputs(graph: Interpreter, signatures: dict[str, Signature], seed: int) -> dict[str, dict[str, Tensor]]:
    """Return random images (N, H, W, 3) in [−1, 1] and latents (N, Z), of the shapes that the graph declares."""
    random = torch.Generator().manual_seed(seed)
    feeds: dict[str, dict[str, Tensor]] = {name: {} for name in signatures}
    for name, signature in signatures.items():
        for one in INPUTS[name]:
            node = graph.node(signature.inputs[one])
            shape = node.attributes.get("shape")
            if not isinstance(shape, tuple) or len(shape) != (4 if one == "x" else 2) or -1 in shape[1:]:
                raise ConversionError(f"{node.name}: expected an input of a fixed size, found the shape {shape}")
            size = (PAIRS, *shape[1:])
            images = torch.rand(size, dtype=VALUE, generator=random) * 2 - 1
            feeds[name][one] = images if one == "x" else torch.randn(size, dtype=VALUE, generator=random)
    return feeds


def _build(settings: dict, tensors: dict[str, Tensor]) -> BigBiGAN:
    """Return our model of these settings with these tensors, in evaluation mode."""
    config = dataclasses.replace(Model(), **settings)
    try:
        check_model(config)
        model = BigBiGAN.from_config(config)
        load_weights(model, tensors, "the module's variables")
    except ValueError as error:
        raise ConversionError(f"{error} (names are ours)") from None
    return model.eval()


@torch.no_grad()
def run_ours(model: BigBiGAN, feeds: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return our model's outputs by "signature.output", for inputs in the module's layout; images are (N, H, W, C)."""
    x, z = (feeds["discriminate"][i] for i in "xz")
    image, latent = feeds["encode"]["x"].permute(0, 3, 1, 2), feeds["generate"]["z"]
    found = {"generate.default": model.generate(latent).permute(0, 2, 3, 1)}
    encoded = model.encode(image, noise=torch.zeros(len(image), model.encoder.latent_dim, dtype=image.dtype))
    found |= {f"encode.{name}": encoded[name] for name in OUTPUTS["encode"]}
    scores = model.discriminate(x.permute(0, 3, 1, 2), z)
    return found | {f"discriminate.{name}": scores[name] for name in OUTPUTS["discriminate"]}


def difference(ours: Tensor, theirs: Tensor) -> Difference:
    """Return how far an output is from the module's."""
    theirs = theirs.reshape(ours.shape).to(ours.dtype)
    return Difference(float((ours - theirs).abs().max()), float(theirs.abs().max()))


def _compare(
    model: BigBiGAN, graph: Interpreter, signatures: dict[str, Signature], feeds: dict, places: dict[str, str]
) -> dict[str, Difference]:  # fmt: skip
    """Return the differences of all outputs in double precision.

    Raises ConversionError that names the first part of our model whose result is not the module's.
    """
    kept = {key(graph.canonical(tensor)): name for name, tensor in places.items()}
    theirs: dict[str, Tensor] = {}
    parts: dict[str, Tensor] = {}
    for name, signature in signatures.items():
        inputs = {signature.inputs[i]: value for i, value in feeds[name].items()}

        def keep(tensor: str, value: Tensor) -> None:
            if tensor in kept:
                parts[kept[tensor]] = value

        values = graph.run(_outputs(signature, name), inputs, keep)
        theirs |= {f"{name}.{output}": value for output, value in zip(OUTPUTS[name], values, strict=True)}
    wrong: list[tuple[str, Difference]] = []

    def check(name: str):
        def hook(module, inputs, output: Tensor) -> None:
            value = parts[name].permute(0, 3, 1, 2) if output.ndim == 4 else parts[name]
            if value.numel() != output.numel():
                shapes = f"{tuple(value.shape)} in the module, {tuple(output.shape)} here"
                raise ConversionError(f"{name}: expected results of one shape, found {shapes}")
            found = difference(output, value)
            if not found.relative <= LARGEST:
                wrong.append((name, found))

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(check(name)) for name in parts]
    model.double()
    ours = run_ours(model, feeds)
    model.float()
    for hook in hooks:
        hook.remove()
    found = {name: difference(value, theirs[name]) for name, value in ours.items()}
    wrong += [(name, one) for name, one in found.items() if not one.relative <= LARGEST]
    if wrong:
        name, one = wrong[0]
        raise ConversionError(
            f"{name}: expected what the module computes, found a difference of {one} "
            f"({places.get(name, 'an output')}); its layers are those of our networks, but not what lies between them"
        )
    return found


@dataclass(frozen=True)
class Report:
    """What a conversion found: a summary to print, and the place of every variable."""

    summary: str
    places: str


def report(conversion: Conversion, proof: dict[str, Difference] | None) -> Report:
    """Return the report of a conversion.

    proof: the differences from the module run in TensorFlow; None if that was not done, which the report says.
    """
    m = conversion.model.config
    stages = " ".join(map(str, m.encoder_blocks or (3, 4, 6, 3)))
    forms = ("stem", "padding", "pool_padding", "shortcut", "last_relu")
    lines = [
        f"generator: {m.image_size} px, width {m.generator_width}, {m.latent_dim} latents",
        f"encoder: {m.encoder} × {m.encoder_width:g}, {m.encoder_image_size} px, blocks {stages}; "
        + ", ".join(f"{form} {getattr(m, f'encoder_{form}')}" for form in forms),
        f"discriminator: width {m.discriminator_width}, H and J of {m.mlp_layers} × {m.mlp_width}",
        f"variables: {len(conversion.used)} used, each once; {len(conversion.unused)} that no signature reads",
        *[f"note: {note}" for note in conversion.notes],
        f"largest differences on {PAIRS} random images and latents",
        "  from this library's own reading of the module's graph, in double precision:",
        *_table(conversion.differences),
    ]
    if proof is None:
        lines += [
            "  from the module run in TensorFlow: this proof was not made, for want of TensorFlow",
            "    (pip install bigbigan[tfhub], or --tensorflow PYTHON with one that has it)",
        ]
    else:
        lines += ["  from the module run in TensorFlow, in single precision:", *_table(proof)]
    places = [f"{name} → {place}" for name, place in sorted(conversion.used.items())]
    places += [f"{name} → not read by the signatures" for name in conversion.unused]
    return Report("\n".join(lines), "\n".join(places))


def _table(differences: dict[str, Difference]) -> list[str]:
    return [f"    {name:<24} {one}" for name, one in differences.items()]


def write(folder: Path, module: Path, conversion: Conversion, found: Report) -> None:
    """Write the release of a converted module, with the report as conversion.txt."""
    name, config = module.resolve().name, conversion.model.config
    card = {
        "name": name, "images_seen": 0, "seed": "unknown", "data": {"path": "unknown", "split": "train"},
        "converted_from": {"module": name, "saved_model_sha256": sha256(module / "saved_model.pb")},
    }  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"size": config.image_size, "encoder_size": config.encoder_image_size or config.image_size}
    write_release(folder, conversion.model, card, readme=README.format(name=name, **sizes))
    beside = folder / ".writing-conversion.txt"
    beside.write_text(f"{name}\n\n{found.summary}\n\n{found.places}\n", encoding="utf-8")
    os.replace(beside, folder / "conversion.txt")
