"""E as one file: what onnxruntime and torch compute from it is what the model computes."""

import importlib.util
import json

import numpy as np
import pytest
import torch

import bigbigan
from bigbigan.errors import ExportError
from bigbigan.release import graph as graphs
from bigbigan.release.format import write_release
from bigbigan.release.graph import OUTPUTS, EncoderGraph, export_graph
from bigbigan.release.graph_command import main
from tests.conftest import launch, picture, tiny_model
from tests.uses.test_backbones import ABOUT, KINDS, moved

needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, graphs.NEEDED)), reason='needs pip install "bigbigan[onnx]"'
)
SMALL = {"encoder_blocks": (1, 1, 1, 1)}  # traced in a tenth of the time
FORMATS = ["torch", pytest.param("onnx", marks=needs_onnx)]


def run_file(path, images):
    """The outputs of an exported file by name, and what it says about itself."""
    if path.suffix == ".pt2":
        extra = {"bigbigan.json": ""}
        module = torch.export.load(path, extra_files=extra).module()
        return module(images), json.loads(extra["bigbigan.json"])
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    said = {k.removeprefix("bigbigan."): json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    (given,) = session.get_inputs()
    assert given.name == "images" and given.shape[0] == "batch"
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, session.run(None, {"images": images.numpy()})), strict=True)), said


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["timm", "revnet", "mlp", "progressive"])
def test_every_kind_of_encoder_computes_the_same_elsewhere(kind, format, tmp_path):
    model = moved(tiny_model(**(KINDS[kind] or SMALL)))
    path = tmp_path / f"e{graphs.SUFFIXES[format]}"
    said = export_graph(model, path, format, outputs=OUTPUTS)
    assert str(path) in said and "largest difference" in said
    for n in (1, 5):
        x = torch.rand(n, 3, model.encoder.image_size, model.encoder.image_size) * 2 - 1
        with torch.no_grad():
            expected = model.encode(x)
        found, about = run_file(path, x)
        assert list(found) == list(OUTPUTS) == about["outputs"] and about["image_size"] == model.encoder.image_size
        for name in OUTPUTS:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FORMATS)
def test_uint8_is_what_encode_computes_of_the_picture(format, tmp_path):
    model = moved(tiny_model(**SMALL))
    path = tmp_path / f"e{graphs.SUFFIXES[format]}"
    export_graph(model, path, format, uint8=True)
    pixels = torch.from_numpy(np.stack([np.asarray(picture(i, (8, 8))) for i in range(3)]))
    found, about = run_file(path, pixels.permute(0, 3, 1, 2).contiguous())
    expected = bigbigan.encode([picture(i, (8, 8)) for i in range(3)], model)
    assert list(found) == ["avepool_feat", "z_mean"] and about["images"].startswith("uint8")
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4)


def test_the_model_stays_as_it_is():
    model = moved(tiny_model(**SMALL, checkpointing=True)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    graph = EncoderGraph(model.encoder, ("z_mean",))
    graph(graph.example(2))
    assert model.encoder.training and all(p.requires_grad for p in model.encoder.parameters())
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "expected onnx or torch, found 'tflite'"),
        ({"out": "e.onnx"}, "e.onnx: expected a file NAME.pt2 for --format torch; --format onnx writes NAME.onnx"),
        ({"outputs": ("z_sample",)}, "outputs: expected some of avepool_feat, .* found z_sample"),
        ({"outputs": ()}, "found none"),
        ({"model": {"encoder": "none"}}, "found a GAN"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(options, message, tmp_path):
    options = {"format": "torch", "out": "e.pt2"} | options
    model = tiny_model(**options.pop("model", SMALL))
    with pytest.raises(ExportError, match=message):
        export_graph(model, tmp_path / options.pop("out"), **options)
    assert not list(tmp_path.iterdir())


def test_without_the_packages_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "NEEDED", ("numpy", "no_such_package"))
    with pytest.raises(ExportError, match=r'found no no_such_package; pip install "bigbigan\[onnx\]"'):
        export_graph(tiny_model(**SMALL), tmp_path / "e.onnx")


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    content = graphs.torch_program

    def wrong(graph, about):
        kept, run = content(graph, about)
        return kept, lambda images: [value + 0.01 for value in run(images)]

    monkeypatch.setattr(graphs, "torch_program", wrong)
    with pytest.raises(ExportError, match="expected the outputs of the model within 0.0001, found 0.01"):
        export_graph(tiny_model(**KINDS["mlp"]).eval(), tmp_path / "e.pt2", "torch")
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_traced_is_a_sentence(tmp_path):
    class Branching(torch.nn.Module):
        num_features = 3

        def forward(self, x):
            return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))

    own = tiny_model()
    encoder = bigbigan.Encoder(8, Branching(), 8, mlp_width=8)
    with pytest.raises(ExportError, match="Branching: expected an encoder that torch.export can trace"):
        export_graph(bigbigan.BigBiGAN(own.generator, encoder, None), tmp_path / "e.pt2", "torch")


@pytest.mark.run
def test_the_command(tmp_path, capsys):
    write_release(tmp_path / "release", tiny_model(**KINDS["mlp"]).eval(), ABOUT)
    out = tmp_path / "new" / "e.pt2"
    main([str(tmp_path / "release"), str(out), "--format", "torch", "--uint8", "True", "--outputs", "z_mean"])
    assert "images (N, 3, 8, 8) uint8 in 0 … 255 → z_mean" in capsys.readouterr().out and out.is_file()
    code = "import sys; from bigbigan.release.graph_command import main; main(sys.argv[1:])"
    said, _ = launch("-c", code, "--help")
    assert "bigbigan-export" in said and "--format" in said and len(said.splitlines()) < 40
    _, error = launch("-c", code, "no/such", out, "--format", "torch", code=2)
    assert error.startswith("error: no/such: expected a run folder") and len(error.splitlines()) == 1


@pytest.mark.run
def test_help_needs_no_torch():
    code = (
        "import sys\nfrom bigbigan.release.graph_command import main\ntry: main(['--help'])\n"
        "except SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    launch("-c", code)
