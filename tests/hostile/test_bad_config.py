"""Settings that cannot be: one sentence with status 2 that says what was expected and found; no run folder is begun."""

import itertools
import os

import pytest

from bigbigan.train import main
from tests.conftest import launch, train

LAUGHS = "a: &a [x]\n" + "".join(
    f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in itertools.pairwise("abcdefghi")
)

# what it is → (the file, the message)
FILES = {
    "unknown key": (
        "model: {latent_dm: 3}",
        "mine.yaml: model.latent_dm: expected a setting; did you mean model.latent_dim?",
    ),
    "unknown section": (
        "modle: {latent_dim: 3}",
        "modle: expected one of model, loss, optim, data, grow, run; did you mean model?",
    ),
    "a setting without its section": ("batchsize: 8", "run; did you mean `data: {batch_size: …}`?"),
    "its section before a dot": ("model.latent_dim: 3", "run; did you mean `model: {latent_dim: …}`?"),
    "a part of a name": ("optim: {lr: 1}", "optim.lr: expected a setting; did you mean optim.generator_lr?"),
    "no such key": ("model: {xyzzy: 1}", "mine.yaml: model.xyzzy: expected a setting"),
    "a number": ("5", "expected settings, as in `run: {seed: 1}`, found a single value"),
    "a number for a section": ("model: 3", "model: expected settings, as in `image_size: …`, found 3"),
    "settings for a text": ("model: {encoder: {a: 1}}", "model.encoder: expected a text, found {'a': 1}"),
    "one for several": (
        "model: {encoder_blocks: 3}",
        "model.encoder_blocks: expected a list of whole numbers, found 3",
    ),
    "a number as one writes it": ("run: {images: 1e6}", "expected a whole number, found 1000000.0; write 1_000_000"),
    "nothing for a name": ("~: 3", "mine.yaml: expected settings by their names, found a key that is no name"),
    "a word for one": ("data: {flip: maybe}", "data.flip: expected true or false, found 'maybe'"),
    "a number as key": ("5: 6", "mine.yaml: 5: expected one of model, loss,"),
    "a word for a number": (
        "optim: {generator_lr: fast}",
        "optim.generator_lr: expected a number, found 'fast'",
    ),
    "half an image": (
        "data: {batch_size: 8.5}",
        "data.batch_size: expected a whole number, found 8.5",
    ),
    "yes for a number": ("data: {batch_size: true}", "data.batch_size: expected a whole number, found true"),
    "nothing for a number": ("data: {batch_size: null}", "data.batch_size: expected a whole number, found nothing"),
    "nothing for a section": ("data: null", "data: expected settings, as in `path: …`, found nothing"),
    "a list for a section": ("model: [1, 2]", "model: expected settings, as in `image_size: …`, found [1, 2]"),
    "three for two": ("optim: {betas: [1, 2, 3]}", "optim.betas: expected a list of two numbers, found [1, 2, 3]"),
    "none of the words": ("loss: {form: hing}", "logistic, wgan_gp, lsgan, found 'hing'; did you mean hinge?"),
    "not finite": ("optim: {eps: .nan}", "--optim.eps nan: expected a finite number"),
    "infinite": ("optim: {generator_lr: .inf}", "--optim.generator_lr inf: expected a finite number"),
    "too long a number": (f"run: {{images: {'1' * 5000}}}", "Exceeds the limit (4300 digits)"),
    "twice": ("run: {name: a, name: b}", "expected YAML, found an error in line 1: found duplicate key name"),
    "a bracket open": ("model: {image_size: 8", "expected YAML, found an error in line"),
    "a tab": ("run:\n\tname: a", "found character that cannot start any token"),
    "a list": ("- a\n- b", "mine.yaml: expected settings, as in `model: …`, found ['a', 'b']"),
    "words": ("just words", "mine.yaml: just words: expected one of model, loss,"),
    "a number in quotes": ("'0'", "mine.yaml: expected settings, found a text in quotes"),
    "a deep nest": ("model: " + "[" * 3000, "expected YAML, found an error"),
    "deep and closed": ("[" * 3000 + "]" * 3000, "expected YAML, found"),
    "aliases without end": (LAUGHS, "mine.yaml: expected YAML, found an error"),
    "a loop": ("a: &a {b: *a}", "mine.yaml: expected YAML, found an error"),
    "a program": (
        "run: {name: !!python/object/apply:os.system ['touch x']}",
        "the tag !!python/object/apply:os.system in line 1",
    ),
    "an object": (
        "!!python/object/new:subprocess.Popen [touch planted]",
        "expected plain values, found the tag !!python/obj",
    ),
    "a module": (
        "run: {name: !!python/name:os.system }",
        "expected plain values, found the tag !!python/name:os.system",
    ),
    "a tag of one's own": (
        "run: {name: !secret a}",
        "expected plain values, found the tag !secret in line 1; remove it",
    ),
    "the environment": (
        "run: {name: '${oc.env:HOME}'}",
        "expected values, found '${oc.env:HOME}'; write what it stands for",
    ),
    "another key": ("run: {name: '${data.path}'}", "expected values, found '${data.path}'"),
    "bytes": (b"\x80\x04\x95cos\nsystem\n", "expected text in UTF-8, found the byte 0x80 at 0"),
    "UTF-16": ("run: {name: a}".encode("utf-16"), "expected text in UTF-8, found the byte 0xff at 0"),
    "a zero byte": (b"run: {name: 'a\0b'}", "mine.yaml: "),
    "an escaped zero byte": ('run: {name: "a\\0b"}', "--run.name 'a\\\\x00b': expected text that can be printed"),
    "too large": (b"# " + b"x" * 2**20, "expected a text of at most 1 MiB, found 1,048,578 bytes"),
    "up and out": (
        "run: {name: ../../etc}",
        "--run.name ../../etc: expected a folder's name under --run.root, found a way",
    ),
    "absolute": ("run: {name: /etc/run}", "--run.name /etc/run: expected a folder's name under --run.root"),
    "a negative seed": ("run: {seed: -1}", "--run.seed -1: expected at least 0"),
    "a seed too large": ("run: {seed: 18446744073709551616}", "expected less than 2^63"),
    "no width": ("model: {generator_width: 0}", "--model.generator_width 0: expected from 1 to 65,536"),
    "a vast width": ("model: {mlp_width: 1000000000}", "--model.mlp_width 1000000000: expected from 1 to 65,536"),
    "a vast depth": (
        "model: {mlp_layers: 1000000000}",
        "--model.mlp_layers 1000000000: expected an even number from 2 to 1,000",
    ),
    "an odd depth": ("model: {mlp_layers: 3}", "--model.mlp_layers 3: expected an even number from 2 to 1,000"),
    "no latents": ("model: {latent_dim: -5}", "--model.latent_dim -5: expected from 0 to 65,536"),
    "a negative width": (
        "model: {encoder_width: -1}",
        "--model.encoder_width -1.0: expected a multiple above 0, of at most 64",
    ),
    "three stages": (
        "model: {encoder_blocks: [1, 2, 3]}",
        "--model.encoder_blocks 1 2 3: expected four numbers of blocks",
    ),
}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return " ".join(captured.err.replace("│", " ").split())


@pytest.mark.run
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be(elsewhere, capsys, name):
    content, message = FILES[name]
    (elsewhere / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    text = said(capsys, ["--config", "mine.yaml"])
    assert text.startswith("error: ") and message in text, text
    assert [path.name for path in elsewhere.iterdir()] == ["mine.yaml"], "nothing is begun, nothing was run"


@pytest.mark.run
def test_an_interpolation_does_not_show_the_environment(elsewhere, capsys, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    (elsewhere / "mine.yaml").write_text("data: {path: '${oc.env:SECRET}'}")
    assert "hunter2" not in said(capsys, ["--config", "mine.yaml"])


@pytest.mark.run
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config", "digit"], "expected one of"),
        (["--config", "nowhere.yaml"], "found no such file"),
        (["--config", "folder.yaml"], "found no such file"),
        (["--config", "pipe.yaml"], "found no such file"),
        (["--config", "loop.yaml"], "found no such file"),
        (["--config", "../digits"], "or a path ending in .yaml"),
        (["--config"], "expected one argument"),
        (["--model.latent_dm", "3"], "did you mean --model.latent_dim?"),
        (["--data.batch_size", "eight"], "batch"),
        (["--data.batch_size"], "batch"),
        (["--loss.form", "hing"], "hing"),
        (["--data.batch_size", "64", "--data.chunks", "3"], "expected a multiple of processes × chunks = 1 × 3"),
        (["--data.batch_size", "4", "--data.chunks", "4"], "--data.chunks 4: expected at most 2, so that a chunk has"),
        (["--run.best", "fid"], "--run.best fid: expected --run.evaluate_every too"),
        (["--model.prior", "uniform"], "expected the uniform prior together with the posterior tanh or sigmoid"),
        (["--model.posterior", "tanh"], "expected the uniform prior together with the posterior tanh or sigmoid"),
        (["--optim.betas", "0", "1"], "expected two numbers in [0, 1)"),
        (["--optim.encoder_lr", "inf"], "--optim.encoder_lr inf: expected a finite number"),
        (["--run.name", "../out"], "found a way out of it"),
        (["--run.stop_after", "-1"], "--run.stop_after -1.0: expected minutes, or 0 for never"),
        (["--data.test_share", "1"], "--data.test_share 1.0: expected a share above 0 and below 1"),
        (["--data.workers", "-2"], "--data.workers -2: expected at least -1"),
        (["--data.path", os.fsdecode(b"caf\xe9")], "--data.path 'caf\\\\udce9': expected text that can be printed"),
        (["stray"], "stray"),
    ],
    ids=" ".join,
)
def test_a_flag_that_cannot_be(elsewhere, capsys, flags, message):
    (elsewhere / "folder.yaml").mkdir()
    os.mkfifo(elsewhere / "pipe.yaml")
    (elsewhere / "loop.yaml").symlink_to("loop.yaml")
    assert message in said(capsys, flags)
    assert not (elsewhere / "runs").exists()


@pytest.mark.run
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--model.image_size=100"],
            "image_size 100: expected b·2^k with b = 3 … 7, from 8 to 512; the nearest: 96 and 112",
        ),
        (["--model.image_size=1"], "--model.encoder_image_size"),
        (["--model.latent_dim=1"], "latent_dim 1: expected at least 2, one for each chunk of a 8 px generator"),
        (
            ["--model.generator_attention=16"],
            "generator attention 16: expected 0 or the resolution of a block, one of [8]",
        ),
        (
            ["--model.generator_attention=8", "--model.generator_width=1"],
            "self-attention: expected a multiple of 8 channels",
        ),
        (["--model.encoder=resnet5"], "encoder 'resnet5': expected revnet50 or the name of a timm model; did you mean"),
        (
            ["--model.encoder=resnet18"],
            "encoder width 0.125: expected 1 for 'resnet18'; only revnet50 and the resnetv2 family",
        ),
        (["--run.trackers=nothing_of_the_kind"], "--run.trackers nothing_of_the_kind: expected trackers of Accelerate"),
        (
            ["--model.init_from=nowhere"],
            "nowhere: expected a run folder, checkpoint, release or hub id; no such folder",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_networks_that_cannot_be(tmp_path, flags, message):
    if "--model.image_size=1" in flags:
        flags, message = ["--model.image_size=1", "--model.encoder_image_size=1"], "image_size 1: expected b·2^k"
    _, err = train(tmp_path / "runs", "--run.name=run", *flags, code=2)
    assert err.count("error: ") == 1 and message in err and "Traceback" not in err, err
    assert not (tmp_path / "runs").exists()


@pytest.mark.run
def test_the_command_itself(tmp_path):
    (tmp_path / "mine.yaml").write_text("run: {name: !!python/object/apply:os.system ['touch planted']}")
    out, err = launch("bigbigan/train.py", "--config", tmp_path / "mine.yaml", code=2)
    assert err.startswith("error: ") and err.count("\n") == 1 and not out, err


def test_a_run_folder_with_a_hostile_config_is_not_obeyed(tmp_path, monkeypatch):
    """The page shows the file; nothing in it is built."""
    from bigbigan.report import write_page

    monkeypatch.chdir(tmp_path)
    for i, text in enumerate(
        (
            "run: !!python/object/apply:os.system ['touch planted']",
            "run: [1, 2]",
            "run: {images: many}",
            "- 1",
            "a: 2001-99-99",
            "<script>alert(1)</script>",
            "[" * 3000,
            "run: {name: <img src=x onerror=alert(1)>}",
        )
    ):
        folder = tmp_path / f"run{i}"
        folder.mkdir()
        (folder / "config.yaml").write_text(text)
        (folder / "stats.jsonl").write_bytes(
            b"\x80\x04cos\nsystem\n" + b'{"images_seen": "x"}\n' + b"[" * 3000 + b"\n[1]\n"
        )
        (folder / "probe.json").write_bytes(b"\x80\x04cos\nsystem\n")
        page = write_page(folder).read_text()
        assert "<script>alert(1)" not in page and "<img src=x" not in page
    assert not (tmp_path / "planted").exists()
