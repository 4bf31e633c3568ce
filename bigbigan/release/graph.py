"""Write E as one file that runs without this library: a torch.export program or an ONNX graph, for any batch size."""

import copy
import importlib.util
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from bigbigan.data import to_signed
from bigbigan.errors import ExportError
from bigbigan.files import check_writable, expanded, printable, write_whole
from bigbigan.model import BigBiGAN, absence
from bigbigan.networks.encoder import Encoder

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
NEEDED = ("onnx", "onnxscript", "onnxruntime")
OUTPUTS = ("avepool_feat", "z_mean", "z_stdev", "bn_crelu_feat")  # those without noise
# Largest difference of an output from torch's, relative to its largest magnitude where that is above 1.
TOLERANCE = 1e-4
LARGEST = 2 * 10**9  # bytes of a protobuf, in which ONNX stores a graph

Run = Callable[[Tensor], list[Tensor]]


class EncoderGraph(nn.Module):
    """E as one function: images (N, 3, S, S) → a dictionary of outputs, (N, ...) each.

    outputs: some of `OUTPUTS`.  uint8: images are uint8 in 0 … 255; else float32 in [−1, 1].
    """

    def __init__(self, encoder: Encoder, outputs: tuple[str, ...], uint8: bool = False):
        super().__init__()
        self.encoder, self.outputs, self.uint8 = copy.deepcopy(encoder).cpu().float().eval(), outputs, uint8
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        avepool = self.encoder.avepool(to_signed(images) if self.uint8 else images)
        posterior = self.encoder.head(avepool)
        found = {"avepool_feat": avepool, "z_mean": posterior.mean, "z_stdev": posterior.stddev}
        if "bn_crelu_feat" in self.outputs:
            found["bn_crelu_feat"] = self.encoder.bn_crelu(avepool)
        return {name: found[name] for name in self.outputs}

    def example(self, n: int) -> Tensor:
        """Return n random images as the graph takes them."""
        size = self.encoder.image_size
        pixels = torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(n)).to(torch.uint8)
        return pixels if self.uint8 else to_signed(pixels)


@torch.no_grad()
def export_graph(
    model: BigBiGAN,
    out: Path,
    format: str = "onnx",
    *,
    outputs: tuple[str, ...] = ("avepool_feat", "z_mean"),
    uint8: bool = False,
) -> str:
    """Write E of a model to the file `out` and return a sentence about it. Raises ExportError or OSError.

    format: "onnx" or "torch".  outputs, uint8: see `EncoderGraph`.
    The file takes "images", (N, 3, S, S) for any N of at least 1. It is run on 1 and on 3 images, and kept only where
    it computes what the model computes.
    """
    out = expanded(out)
    _check(model, out, format, outputs)
    graph = EncoderGraph(model.encoder, tuple(outputs), uint8)
    about = {
        "made_by": "bigbigan", "image_size": graph.encoder.image_size, "outputs": list(graph.outputs),
        "images": "uint8, 0 to 255" if uint8 else "float32, -1 to 1", "name": str((model.card or {}).get("name", "")),
    }  # fmt: skip
    content, run = (onnx_graph if format == "onnx" else torch_program)(graph, about)
    away = max(difference(graph, run, n) for n in (1, 3))
    if not away <= TOLERANCE:  # nor NaN
        raise ExportError(
            f"{printable(out)}: expected the outputs of the model within {TOLERANCE:g}, found {away:.2g}; nothing was "
            "written"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda path: path.write_bytes(content))
    size, kind = graph.encoder.image_size, "uint8 in 0 … 255" if uint8 else "float32 in [−1, 1]"
    return (
        f"{printable(out)}: {len(content) / 1e6:.2f} MB, images (N, 3, {size}, {size}) {kind} → "
        f"{', '.join(graph.outputs)}; largest difference from the model {away:.1e}"
    )


def _check(model: BigBiGAN, out: Path, format: str, outputs: tuple[str, ...]) -> None:
    """Raise ExportError for what cannot be exported as asked."""
    if format not in SUFFIXES:
        raise ExportError(f"format: expected onnx or torch, found {format!r}")
    if model.encoder is None:
        raise ExportError(f"model: {absence('encoder')}")
    if not outputs or set(outputs) - set(OUTPUTS):
        raise ExportError(f"outputs: expected some of {', '.join(OUTPUTS)}; found {', '.join(outputs) or 'none'}")
    if out.suffix != SUFFIXES[format] or out.is_dir():
        other = "".join(f"; --format {name} writes NAME{end}" for name, end in SUFFIXES.items() if end == out.suffix)
        raise ExportError(f"{printable(out)}: expected a file NAME{SUFFIXES[format]} for --format {format}{other}")
    check_writable(out)
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if format == "onnx" and absent:
        raise ExportError(
            f"--format onnx: expected the packages {', '.join(NEEDED)}, found no {', '.join(absent)}; "
            'pip install "bigbigan[onnx]", or choose --format torch'
        )


def torch_program(graph: EncoderGraph, about: dict) -> tuple[bytes, Run]:
    """Return the bytes of a torch.export program, and a function that runs them."""
    buffer = io.BytesIO()
    torch.export.save(_program(graph), buffer, extra_files={"bigbigan.json": json.dumps(about)})
    module = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    return buffer.getvalue(), lambda images: list(module(images).values())


def onnx_graph(graph: EncoderGraph, about: dict) -> tuple[bytes, Run]:
    """Return the bytes of an ONNX graph, and a function that runs them with onnxruntime on the CPU."""
    import onnxruntime

    sizes = {"images": {0: torch.export.Dim("batch")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of its own parts
        program = torch.onnx.export(
            _program(graph),
            (graph.example(2),),
            input_names=["images"],
            output_names=list(graph.outputs),
            dynamic_shapes=sizes,
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    if proto.ByteSize() >= LARGEST:
        raise ExportError(
            f"--format onnx: expected a graph below 2 GB, found {proto.ByteSize() / 1e9:.1f}; choose --format torch"
        )
    for key, value in about.items():
        proto.metadata_props.add(key=f"bigbigan.{key}", value=json.dumps(value))
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: [torch.from_numpy(a) for a in session.run(None, {"images": images.numpy()})]


def _program(graph: EncoderGraph) -> torch.export.ExportedProgram:
    """Return the graph as torch.export traces it, for any number of images."""
    try:
        sizes = {"images": {0: torch.export.Dim("batch")}}
        return torch.export.export(graph, (graph.example(2),), dynamic_shapes=sizes)
    except Exception as error:  # a backbone that cannot be traced raises one of many types
        reason = str(error).strip().split("\n")[0]
        raise ExportError(
            f"{type(graph.encoder.trunk).__name__}: expected an encoder that torch.export can trace for any number of "
            f"images, found {type(error).__name__}: {reason}"
        ) from None


def difference(graph: EncoderGraph, run: Run, n: int) -> float:
    """Return the largest difference of a file's outputs from the model's on n images, see `TOLERANCE`."""
    images = graph.example(n)
    pairs = zip(run(images), graph(images).values(), strict=True)
    return max(float((found - own).abs().max() / own.abs().max().clamp_min(1)) for found, own in pairs)
