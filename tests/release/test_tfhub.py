"""Modules of TensorFlow Hub: read and converted without TensorFlow, and compared with what TensorFlow computed.

tests/fixtures/tfhub-module.tar.xz is the variant "small" of tests/helpers/tf_module.py, written by TensorFlow 2.21,
with inputs and TensorFlow's outputs (expected.npz). Other variants are built where there is a TensorFlow: in this
Python, or in that named by the environment variable BIGBIGAN_TENSORFLOW.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

import bigbigan
from bigbigan.errors import ConversionError
from bigbigan.release import convert_command as command
from bigbigan.release.convert import generator_from_biggan
from bigbigan.release.format import FILES
from bigbigan.release.tfhub import proof
from bigbigan.release.tfhub.checkpoint import Checkpoint, read_table
from bigbigan.release.tfhub.convert import convert_module, run_ours
from bigbigan.release.tfhub.crc import crc32c
from bigbigan.release.tfhub.weights import Weights, singular_vectors
from tests.conftest import ROOT, launch
from tests.helpers.tf_checkpoint import change_index, write_table
from tests.release.test_convert import Peer

FIXTURE = ROOT / "tests" / "fixtures" / "tfhub-module.tar.xz"
TENSORFLOW = os.environ.get("BIGBIGAN_TENSORFLOW") or (
    sys.executable if importlib.util.find_spec("tensorflow") else "")  # fmt: skip
needs_tensorflow = pytest.mark.skipif(not TENSORFLOW, reason="TensorFlow is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "small"


@pytest.fixture(scope="module")
def converted(small):
    return convert_module(small)


@pytest.fixture
def module(small, tmp_path) -> Path:
    """A copy of the small module, to be damaged."""
    return shutil.copytree(small, tmp_path / "module")


def differences(module: Path, model) -> dict[str, float]:
    """Of our outputs, in float32, from TensorFlow's of the same inputs, relative to their largest value."""
    stored = dict(np.load(module / "expected.npz"))
    feeds: dict = {}
    for name, value in stored.items():
        signature, side, key = name.split(".")
        if side == "in":
            feeds.setdefault(signature, {})[key] = torch.from_numpy(value)
    ours = run_ours(model, feeds)
    expected = {name.replace(".out.", "."): torch.from_numpy(v) for name, v in stored.items() if ".out." in name}
    assert ours.keys() == expected.keys()
    return {name: float((ours[name] - expected[name]).abs().max() / expected[name].abs().max()) for name in ours}


def test_outputs_are_those_that_tensorflow_computed(small, converted):
    assert max(differences(small, converted.model).values()) < 1e-5
    assert max(d.relative for d in converted.differences.values()) < 1e-6


def test_every_variable_is_used_once_or_listed(small, converted):
    names = set(Checkpoint(small / "variables" / "variables"))
    assert set(converted.used) | set(converted.unused) == names and not set(converted.used) & set(converted.unused)
    assert converted.used["painter/colour/shadow"] == "generator.embedding"  # the average, which inference reads
    assert {"painter/colour", "painter/canvas/second"} <= set(converted.unused)


def test_settings_are_read_from_the_graph(converted):
    m = converted.model.config
    assert (m.image_size, m.latent_dim, m.embedding_dim, m.generator_width, m.generator_attention) == (16, 6, 5, 2, 8)
    assert (m.discriminator_width, m.discriminator_attention, m.mlp_width, m.mlp_layers) == (2, 8, 16, 4)
    assert (m.encoder, m.encoder_image_size, m.encoder_width, m.encoder_blocks) == (
        "resnetv2_50",
        32,
        1 / 32,
        (1, 2, 1, 1),
    )
    assert (m.encoder_stem, m.encoder_padding, m.encoder_pool_padding) == ("imagenet", "same", "same")
    assert (m.encoder_shortcut, m.encoder_last_relu) == ("preactivated", "no")
    assert (m.encoder_mlp_width, m.encoder_mlp_layers) == (12, 2)


def test_the_command_writes_a_release_that_loads(small, tmp_path, capsys):
    out = tmp_path / "release"
    with mock.patch.object(proof, "python_with_tensorflow", lambda: ""):
        command.main(["tfhub", str(small), str(out)])
    printed = capsys.readouterr().out
    assert "228 used, each once; 184 that no signature reads" in printed and "this proof was not made" in printed
    assert {p.name for p in out.iterdir()} == {*FILES, "conversion.txt"}
    assert max(differences(small, bigbigan.load(out)).values()) < 1e-5
    lines = (out / "conversion.txt").read_text().splitlines()
    assert "painter/colour/shadow → generator.embedding" in lines
    assert "painter/colour → not read by the signatures" in lines
    assert "is not in the module" in (out / "README.md").read_text()


def test_a_release_from_before_the_options_keeps_its_padding(small, tmp_path):
    command.main(["tfhub", str(small), str(tmp_path), "--tensorflow", "none"])
    config = json.loads((tmp_path / "config.json").read_text())
    names = ("encoder_padding", "encoder_pool_padding", "encoder_shortcut", "encoder_last_relu")
    assert [config["model"].pop(name) for name in names] == ["same", "same", "preactivated", "no"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = bigbigan.load(tmp_path)
    assert model.encoder.trunk.stem.conv.padding == (3, 3) and model.encoder.trunk.stem.pool.padding == 1
    assert [getattr(model.config, name) for name in names] == ["symmetric", "symmetric", "preactivated", "auto"]


def renamed(content):
    content[b"judge/hear/0/up/mapp"] = content.pop(b"judge/hear/0/up/map/shadow")


def missing(content):
    del content[b"reader/floor1/room1/n2/spread"]


def of_another_shape(content):
    content[b"painter/frame/taps/shadow"] = content[b"painter/frame/shift/shadow"]


def of_another_type(content):
    entry = content[b"reader/floor1/room1/n2/spread"]
    content[b"reader/floor1/room1/n2/spread"] = b"\x08\x03" + entry[2:]  # int32, of as many bytes


@pytest.mark.parametrize(
    "change, said",
    [
        (of_another_type, "variable reader/floor1/room1/n2/spread: expected the type torch.float32 .* torch.int32"),
        (renamed, "expected the variable judge/hear/0/up/map/shadow, found none of this name"),
        (missing, "expected the variable reader/floor1/room1/n2/spread, found none of this name"),
        (of_another_shape, r"variable painter/frame/taps/shadow: expected the shape \(3, 3, 8, 3\).*found \(3,\)"),
    ],
)
def test_a_variable_that_does_not_fit_stops_the_conversion(change, said, module, tmp_path, capsys):
    change_index(module, change)
    with pytest.raises(SystemExit) as ended:
        command.main(["tfhub", str(module), str(tmp_path / "out"), "--tensorflow", "none"])
    with pytest.raises(ConversionError, match=said):
        convert_module(module)
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("error: ") and not (tmp_path / "out").exists()


def test_an_index_written_anew_reads_the_same(module, converted):
    change_index(module, lambda content: None)
    assert convert_module(module).used == converted.used


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_damaged_files_are_noticed(module):
    data, index = module / "variables/variables.data-00000-of-00001", module / "variables/variables.index"
    flip(data, 20_000)
    with pytest.raises(ConversionError, match="its checksum is not the one in the index"):
        convert_module(module)
    flip(index, 100)
    with pytest.raises(ConversionError, match="variables.index: expected the checksum of the block at byte 0"):
        convert_module(module)
    (module / "saved_model.pb").write_bytes((module / "saved_model.pb").read_bytes()[:5_000])
    with pytest.raises(ConversionError, match=r"saved_model.pb: expected \d+ bytes at byte"):
        convert_module(module)
    for other in ("12040a022001", "12061204 0a020801", "12061204 0a021801"):
        (module / "saved_model.pb").write_bytes(bytes.fromhex(other))  # messages whose strings are numbers
        with pytest.raises(ConversionError, match="saved_model.pb: expected a SavedModel, found another file"):
            convert_module(module)
    with pytest.raises(ConversionError, match="expected the folder of a hub module"):
        convert_module(module / "nothing")
    shutil.rmtree(module / "variables")
    (module / "saved_model.pb").write_bytes(b"\x0a\x00")
    with pytest.raises(ConversionError, match="expected a SavedModel, found a file without a graph"):
        convert_module(module)


def test_what_is_no_table_is_refused(tmp_path):
    path = tmp_path / "variables.index"
    path.write_bytes(b"x" * 100)
    with pytest.raises(ConversionError, match="expected a LevelDB table"):
        Checkpoint(tmp_path / "variables")
    write_table(path, {b"": b"", b"w": b"\x08\x01\x12\x04\x12\x02\x08\x03\x28\x0c"})
    with pytest.raises(ConversionError, match="variables.data-00000-of-00001: expected the data"):
        Checkpoint(tmp_path / "variables")["w"]
    assert dict(read_table(path.read_bytes()))[b""] == b""


def test_data_of_another_size_are_refused(small, tmp_path):
    index, data = "variables.index", "variables.data-00000-of-00001"
    content = dict(read_table((small / "variables" / index).read_bytes()))
    whole = (small / "variables" / data).read_bytes()
    name = max(content, key=lambda one: Checkpoint(small / "variables" / "variables").entries[one.decode()].offset
               if one else -1).decode()  # fmt: skip
    write_table(tmp_path / index, content)
    (tmp_path / data).write_bytes(whole[:-1])
    with pytest.raises(ConversionError, match=rf"variable {name}: expected \d+ bytes of shape .*, found \d+; get"):
        Checkpoint(tmp_path / "variables")[name]
    write_table(tmp_path / index, {b"": b"", b"w": b"\x08\x01\x12\x04\x12\x02\x08\x03\x28\x0d"})
    with pytest.raises(ConversionError, match=r"expected 12 bytes of shape \(3,\) in .*, found 13 in the index"):
        Checkpoint(tmp_path / "variables")["w"]


def test_crc32c_of_known_vectors():
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(b"") == 0  # of RFC 3720
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(bytes(range(32))) == 0x46DD794E
    long = np.random.default_rng(0).integers(0, 256, 300_001, dtype=np.uint8)  # computed in lanes
    crc = 0xFFFFFFFF
    for byte in long.tolist():
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(long) == crc ^ 0xFFFFFFFF


def test_a_variable_used_twice_is_refused():
    weights = Weights(None)
    weights.claim(["w"], "generator.conv")
    weights.claim(["w"], "generator.conv")
    with pytest.raises(ConversionError, match="variable w: expected one use, found it in generator.conv and in other"):
        weights.claim(["w"], "other")


def test_a_weight_that_is_not_divided_by_its_singular_value_is_refused():
    weight = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.linalg.svdvals(weight)[0]
    u, v = singular_vectors(weight, sigma, [], "layer")
    torch.testing.assert_close(u @ weight @ v, sigma)
    with pytest.raises(ConversionError, match="layer: expected a weight divided by its largest singular value"):
        singular_vectors(weight, 1.1 * sigma, [torch.randn(6, dtype=torch.float64)], "layer")


@pytest.mark.run
def test_help_is_short_and_loads_no_torch():
    code = "import sys; from bigbigan.release.convert_command import main\ntry: main(['--help'])\n"
    code += "finally: assert 'torch' not in sys.modules"
    out, _ = launch("-c", code)
    assert len(out.splitlines()) < 15 and "bigbigan-convert tfhub DIR OUT" in out


@pytest.mark.parametrize("flags", [["tfhub", "x"], ["tf", "x", "y"], ["tfhub", "x", "y", "--eps", "1"]])
def test_a_mistyped_command_ends_with_a_sentence(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(flags)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: bigbigan-convert: ") and len(error.splitlines()) == 1


@pytest.mark.parametrize("eps, last_eps", [(1e-4, None), (1e-3, 1e-5)])
def test_a_generator_of_biggan_pytorch_becomes_a_release(eps, last_eps, tmp_path, capsys):
    torch.manual_seed(0)
    peer = Peer(3, 8, 3, 10, 6, attention=1)
    torch.save(peer.state_dict(), tmp_path / "G.pth")
    flags = ["--eps", str(eps), *(["--last_eps", str(last_eps)] if last_eps else [])]
    command.main(["biggan", str(tmp_path / "G.pth"), str(tmp_path / "out"), *flags])
    assert "a generator of 32 px and 10 classes, without encoder" in capsys.readouterr().out
    page = (tmp_path / "out" / "README.md").read_text()
    assert "The generator of a BigGAN" in page and "32 px\nimages, 10 classes." in page and "encode(" not in page
    expected = generator_from_biggan(peer.state_dict(), eps, last_eps)
    z, classes = torch.randn(4, expected.latent_dim), torch.arange(4)
    with torch.no_grad():
        images = bigbigan.load(tmp_path / "out").generate(z, classes)
        torch.testing.assert_close(images, expected(z, classes), rtol=0, atol=2e-5)


VARIANTS = ("resnet", "revnet", "raw", "revnet_plain")
REFUSED = {
    "leaky": "encoder.mlp: expected what the module computes, found a difference of",
    "batch_statistics": "expected a batch norm of stored statistics, found one of its batch's",
}


@pytest.fixture(scope="module")
def modules(tmp_path_factory) -> Path:
    """One module of each variant, written by TensorFlow."""
    folder = tmp_path_factory.mktemp("hub")
    script = ROOT / "tests" / "helpers" / "tf_module.py"
    built = subprocess.run([TENSORFLOW, script, folder, *VARIANTS, *REFUSED], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


@needs_tensorflow
@pytest.mark.run
@pytest.mark.parametrize("name", VARIANTS)
def test_modules_written_in_other_ways(name, modules):
    conversion = convert_module(modules / name)
    assert max(differences(modules / name, conversion.model).values()) < 1e-4
    m = conversion.model.config
    assert [m.encoder, m.encoder_padding, m.encoder_pool_padding, m.encoder_shortcut, m.encoder_last_relu] == {
        "resnet": ["resnetv2_50", "same", "same", "preactivated", "no"],
        "revnet": ["revnet50", "symmetric", "zeros", "preactivated", "auto"],
        "raw": ["resnetv2_50", "symmetric", "same", "raw", "auto"],
        "revnet_plain": ["revnet50", "same", "same", "preactivated", "yes"],
    }[name]


@needs_tensorflow
@pytest.mark.run
@pytest.mark.parametrize("name", REFUSED)
def test_modules_that_our_networks_cannot_be_are_refused(name, modules):
    with pytest.raises(ConversionError, match=REFUSED[name]):
        convert_module(modules / name)


@needs_tensorflow
@pytest.mark.run
def test_the_command_proves_itself_in_tensorflow(modules, tmp_path, capsys):
    command.main(["tfhub", str(modules / "revnet"), str(tmp_path / "out"), "--tensorflow", TENSORFLOW])
    proven = capsys.readouterr().out.partition("from the module run in TensorFlow, in single precision:\n")[2]
    assert len([line for line in proven.splitlines() if "of values up to" in line]) == 8
    conversion = convert_module(modules / "revnet")
    with torch.no_grad():
        conversion.model.encoder.trunk.norm.bias[0] += 1
    with pytest.raises(ConversionError, match="differences in encode.z_mean: .*nothing was written"):
        proof.prove(modules / "revnet", conversion, TENSORFLOW)


def test_a_python_without_tensorflow_is_named(small, converted):
    with pytest.raises(ConversionError, match="/nowhere/python: expected a Python with TensorFlow"):
        proof.prove(small, converted, "/nowhere/python")
