"""Refuse checkpoints, releases and run folders that are damaged, hostile or foreign with one sentence.

They are read as data only: nothing is unpickled, and no link leads out of its folder.
"""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import bigbigan
from bigbigan.config import Config, flatten
from bigbigan.data import open_images
from bigbigan.errors import CheckpointError, ConfigError, DataError, InputError, ProbeError, ReportError
from bigbigan.release.load import card, load_model
from bigbigan.training.checkpoint import complete
from bigbigan.training.launch import lock_run_folder
from eval_linear.probe import results_folder
from tests.conftest import ROOT, picture, tiny_model, train
from tests.helpers.children import SMALLEST

FIXTURE = ROOT / "tests" / "fixtures" / "checkpoint-format-1"
SMALL = {"encoder_width": 0.03125, "encoder_blocks": (1, 1, 1, 1), "mlp_width": 8, "encoder_mlp_width": 8}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a release of a tiny model, which tests copy."""
    folder = tmp_path_factory.mktemp("made") / "release"
    model = tiny_model(**SMALL)
    model.card = card(flatten(Config()), 48)
    model.save_pretrained(folder)
    return folder


def checkpoint_in(tmp_path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "first" / "checkpoints")
    return complete(tmp_path / "first" / "checkpoints")[-1]


def edit(path: Path, **changes) -> None:
    """Change keys of a JSON file; None removes a key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def sealed(folder: Path) -> None:
    """Correct the checksums, so that the change is not noticed as damage."""
    edit(
        folder / "state.json", sha256={f.name: sha256(f.read_bytes()).hexdigest() for f in folder.glob("*.safetensors")}
    )


def rewrite(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    sealed(path.parent)


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path: Path, share: float = 0.5) -> None:
    os.truncate(path, int(share * path.stat().st_size))


def header(path: Path, text: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    sealed(path.parent)


def settings(folder: Path, **changes) -> None:
    content = json.loads((folder / "state.json").read_text())
    edit(folder / "state.json", config=content["config"] | {f"model.{k}": v for k, v in changes.items()})


def first(tensors) -> str:
    return sorted(k for k, v in tensors.items() if v.ndim)[0]


STATE, MODEL, AVERAGES = "state.json", "model.safetensors", "averages.safetensors"

# what is done to a checkpoint folder → the message
CHECKPOINTS = {
    "state empty": (lambda p: (p / STATE).write_text(""), "expected JSON, found something else"),
    "state cut": (lambda p: cut(p / STATE), "expected JSON, found something else"),
    "state a list": (lambda p: (p / STATE).write_text("[]"), "expected a JSON object, found list"),
    "state a pickle": (
        lambda p: (p / STATE).write_bytes(pickle.dumps({})),
        "expected text in UTF-8, found the byte 0x80 at 0",
    ),
    "state nested": (lambda p: (p / STATE).write_text('{"a":' * 9999), "found brackets nested too deeply"),
    "state too large": (
        lambda p: (p / STATE).write_text(" " * 2**21),
        "expected a text of at most 1 MiB, found 2,097,152 bytes",
    ),
    "state a folder": (lambda p: (p / STATE).unlink() or (p / STATE).mkdir(), "found none of these"),
    "a number of many digits": (lambda p: (p / STATE).write_text('{"format": %s}' % ("1" * 9999)), "Exceeds the limit"),
    "future format": (
        lambda p: edit(p / STATE, format=2),
        "expected a checkpoint of format 1, found 2; it needs another version",
    ),
    "no format": (lambda p: edit(p / STATE, format=None), "expected a checkpoint of format 1, found None"),
    "no counter": (lambda p: edit(p / STATE, images_seen=None), "images_seen: expected int, found None"),
    "counter a word": (lambda p: edit(p / STATE, images_seen="many"), "images_seen: expected int, found 'many'"),
    "counter negative": (lambda p: edit(p / STATE, iterations=-1), "iterations: expected int, found -1"),
    "no settings": (lambda p: edit(p / STATE, config=None), "config: expected dict, found None"),
    "settings a list": (lambda p: edit(p / STATE, config=[1]), "config: expected dict, found [1]"),
    "no checksums": (lambda p: edit(p / STATE, sha256=None), "sha256: expected dict, found None"),
    "checksums a word": (lambda p: edit(p / STATE, sha256="x"), "sha256: expected dict, found 'x'"),
    "a checksum missing": (
        lambda p: edit(p / STATE, sha256={}),
        "its checksum is not the one in state.json; the file is damaged",
    ),
    "weights missing": (lambda p: (p / MODEL).unlink(), "expected a complete checkpoint, found FileNotFoundError"),
    "averages missing": (lambda p: (p / AVERAGES).unlink(), "expected a complete checkpoint, found FileNotFoundError"),
    "weights cut": (lambda p: cut(p / MODEL), "its checksum is not the one in state.json"),
    "weights empty": (lambda p: cut(p / MODEL, 0), "its checksum is not the one in state.json"),
    "a bit flipped": (lambda p: flip(p / AVERAGES), "averages.safetensors: its checksum is not the one in state.json"),
    "a bit of the header": (lambda p: flip(p / MODEL, 20), "its checksum is not the one in state.json"),
    "weights a pickle": (
        lambda p: (p / MODEL).write_bytes(pickle.dumps([1])) and sealed(p),
        "expected a complete checkpoint",
    ),
    "cut and sealed": (lambda p: cut(p / MODEL) or sealed(p), "expected a complete checkpoint, found SafetensorError"),
    "header of a terabyte": (
        lambda p: (p / MODEL).write_bytes(struct.pack("<Q", 2**40) + b"{}") and sealed(p),
        "found SafetensorError",
    ),
    "offsets outside": (
        lambda p: header(p / MODEL, b'{"a":{"dtype":"F32","shape":[9999999],"data_offsets":[0,39999996]}}'),
        "SafetensorError",
    ),
    "shape overflowing": (
        lambda p: header(p / MODEL, b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
        "Safetensor",
    ),
    "no such type": (
        lambda p: header(p / MODEL, b'{"a":{"dtype":"X9","shape":[0],"data_offsets":[0,0]}}'),
        "SafetensorError",
    ),
    "no tensors": (lambda p: header(p / MODEL, b"{}"), "the weights are of another architecture than the config"),
    "a tensor missing": (lambda p: rewrite(p / AVERAGES, lambda t: t.pop(first(t))), "is missing"),
    "a tensor too many": (lambda p: rewrite(p / AVERAGES, lambda t: t.update(x=torch.zeros(1))), "x is unknown"),
    "another shape": (
        lambda p: rewrite(p / AVERAGES, lambda t: t.update({first(t): torch.zeros(3)})),
        "has shape (3,), expected",
    ),
    "whole numbers": (
        lambda p: rewrite(p / AVERAGES, lambda t: t.update({first(t): t[first(t)].long()})),
        "is of torch.int64, expected",
    ),
    "another architecture": (
        lambda p: settings(p, generator_width=3),
        "weights are of another architecture than the config",
    ),
    "unknown setting": (lambda p: settings(p, magic=3), "unknown keys magic; was it written by a newer version?"),
    "setting a word": (
        lambda p: settings(p, image_size="large"),
        "state.json: image_size: expected a whole number, found 'large'",
    ),
    "setting a list": (
        lambda p: settings(p, image_size=[8]),
        "state.json: image_size: expected a whole number, found [8]",
    ),
    "setting infinite": (
        lambda p: settings(p, encoder_width=float("inf")),
        "--model.encoder_width inf: expected a finite number",
    ),
    "setting the environment": (
        lambda p: settings(p, init_from="${oc.env:HOME}"),
        "expected values, found '${oc.env:HOME}'",
    ),
    "a giant": (
        lambda p: settings(p, mlp_width=65_536, mlp_layers=1_000),
        "weights are of another architecture than the config",
    ),
    "a greater giant": (
        lambda p: settings(p, mlp_width=2**40),
        "--model.mlp_width 1099511627776: expected from 1 to 65,536",
    ),
    "no such backbone": (
        lambda p: settings(p, encoder="hf-hub:evil/network"),
        "expected revnet50 or the name of a timm model",
    ),
    "a way out as backbone": (
        lambda p: settings(p, encoder="../../network"),
        "expected revnet50 or the name of a timm model",
    ),
    "no such size": (lambda p: settings(p, image_size=100), "image_size 100: expected b·2^k"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_used(tmp_path, name):
    damage, message = CHECKPOINTS[name]
    folder = checkpoint_in(tmp_path)
    damage(folder)
    before = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    with pytest.raises(CheckpointError) as refusal:
        load_model(folder)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
    assert before == {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}


CONFIG = "config.json"

RELEASES = {
    "settings cut": (lambda p: cut(p / CONFIG), "config.json: expected JSON, found something else"),
    "settings a pickle": (
        lambda p: (p / CONFIG).write_bytes(pickle.dumps({})),
        "expected text in UTF-8, found the byte 0x80",
    ),
    "settings a list": (lambda p: (p / CONFIG).write_text("[1]"), "expected a JSON object, found list"),
    "future format": (lambda p: edit(p / CONFIG, format=2), "expected a bigbigan release of format 1, found 2"),
    "another library's": (
        lambda p: (p / CONFIG).write_text('{"model_type": "bert"}'),
        "release of format 1, found 'none'",
    ),
    "no model": (lambda p: edit(p / CONFIG, model=None), "expected the settings of a model, found NoneType"),
    "model a list": (lambda p: edit(p / CONFIG, model=[1]), "expected the settings of a model, found list"),
    "unknown setting": (lambda p: edit(p / CONFIG, model={"magic": 1}), "unknown keys magic"),
    "default model": (lambda p: edit(p / CONFIG, model={}), "weights are of another architecture than the config"),
    "weights missing": (lambda p: (p / MODEL).unlink(), "model.safetensors: expected tensors, found FileNotFoundError"),
    "weights cut": (
        lambda p: cut(p / MODEL),
        "its checksum is not the one in config.json; the file is damaged, get it again",
    ),
    "a bit flipped": (lambda p: flip(p / MODEL), "its checksum is not the one in config.json"),
    "cut, no checksum": (
        lambda p: edit(p / CONFIG, sha256=None) or cut(p / MODEL),
        "expected tensors, found SafetensorError",
    ),
    "weights a pickle": (
        lambda p: edit(p / CONFIG, sha256=None) or (p / MODEL).write_bytes(pickle.dumps([1])),
        "expected tensors, found Safetensor",
    ),
    "link out": (
        lambda p: (p / MODEL).rename(p.parent / "w") and (p / MODEL).symlink_to(p.parent / "w"),
        "found that it leads to",
    ),
    "settings a link out": (
        lambda p: (p / CONFIG).rename(p.parent / "c") and (p / CONFIG).symlink_to("../c"),
        "found that it leads to",
    ),
    "anything a link out": (
        lambda p: (p / "probe.json").symlink_to("/etc/passwd"),
        "itself, found that it leads to /etc/passwd",
    ),
    "link loop": (lambda p: (p / CONFIG).unlink() or (p / CONFIG).symlink_to(CONFIG), "found none of these"),
}


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_that_cannot_be_used(made, tmp_path, name):
    damage, message = RELEASES[name]
    shutil.copytree(made, tmp_path / "release")
    damage(tmp_path / "release")
    with pytest.raises(CheckpointError) as refusal:
        bigbigan.encode(picture(0), tmp_path / "release")
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_links_of_a_hub_cache_are_followed(made, tmp_path):
    """In a hub cache snapshots/<revision>/ holds links to blobs/, and the cache may itself be reached by a link."""
    cache = tmp_path / "models--someone--digits"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for file in made.iterdir():
        shutil.copy(file, cache / "blobs" / f"of-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/of-{file.name}")
    (tmp_path / "alias").symlink_to(snapshot)
    for folder in (snapshot, tmp_path / "alias"):
        assert load_model(folder).card["images_seen"] == 48
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(made / "config.json")
    with pytest.raises(CheckpointError, match="found that it leads to"):
        load_model(snapshot)


@pytest.mark.parametrize(
    "name", ["../../etc", "a\0b", "x" * 5000, "~no-such-user/x", "someone/..", "http://example.org/x", "", "a/b/c"]
)
def test_a_name_that_is_no_model(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError) as refusal:
        load_model(name)
    assert "expected a run folder, checkpoint, release or hub id" in str(refusal.value) or "the hub gave none" in str(
        refusal.value
    )


FLAGS = ("--run.name=first", "--run.images=48")


def resumed(tmp_path, *flags) -> str:
    """Try to resume, which must be refused with status 2 and leave the run's files as they are; return the message."""
    run = tmp_path / "first"
    (run / "config.yaml").write_text("# mine\n")
    (run / "stats.jsonl").write_text('{"images_seen": 24}\n')
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "run.lock"}
    _, err = train(tmp_path, *SMALLEST, *FLAGS, *flags, code=2)
    after = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "run.lock"}
    assert before == after and err.count("error: ") == 1 and "Traceback" not in err, err
    return err


def adam(key):
    def change(tensors):
        name = next(k for k in tensors if k.endswith(key))
        tensors.pop(name)

    return change


@pytest.mark.run
@pytest.mark.parametrize(
    ("damage", "flags", "message"),
    [
        (lambda p: (p / MODEL).unlink(), [], "none of its 1 checkpoints is sound; remove the folder to start afresh"),
        (lambda p: edit(p / STATE, format=7), [], "expected a checkpoint of format 1, found 7"),
        (lambda p: None, ["--model.generator_width=3"], "model.generator_width: 2 → 3"),
        (
            lambda p: None,
            ["--model.generator_width=3", "--run.accept_changes=True"],
            "another architecture cannot be resumed",
        ),
        (
            lambda p: rewrite(p / "optimizer.safetensors", adam("exp_avg")),
            ["--run.accept_changes=True"],
            "optimizer.safetensors: discriminator/",
        ),
        (
            lambda p: rewrite(p / "optimizer.safetensors", lambda t: t.update(stray=torch.zeros(1))),
            ["--run.accept_changes=True"],
            "state of unknown parameters",
        ),
        (
            lambda p: p.rename(p.parents[2] / "moved") and p.symlink_to(p.parents[2] / "moved"),
            [],
            "found that it leads to",
        ),
        (
            lambda p: (p.parents[1] / "run.lock").symlink_to(p.parents[2] / "victim"),
            [],
            "run.lock: expected a file or folder of",
        ),
        (
            lambda p: (p.parent / ".x.tmp").symlink_to(p.parents[2] / "victim"),
            [],
            "checkpoints/.x.tmp: expected a file or folder",
        ),
    ],
    ids=["part missing", "future", "changed", "architecture", "adam", "stray", "link", "lock", "a link within"],
)
def test_a_run_that_cannot_be_resumed(tmp_path, caplog, damage, flags, message):
    (tmp_path / "victim").write_text("precious")
    damage(checkpoint_in(tmp_path))
    text = resumed(tmp_path, *flags)
    assert message in text + caplog.text
    assert (tmp_path / "victim").read_text() == "precious", "a link in a run folder does not lead our writing astray"


def test_a_probe_is_not_led_astray_either(made, tmp_path):
    shutil.copytree(made, tmp_path / "release")
    (tmp_path / "release" / "features").mkdir()
    (tmp_path / "release" / "features" / "x.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(
        ProbeError, match="features/x.tmp: expected a file or folder of .*release itself, found that it leads to"
    ):
        results_folder(str(tmp_path / "release"))
    (tmp_path / "release" / "features" / "x.tmp").unlink()
    assert results_folder(str(tmp_path / "release")) == tmp_path / "release"


@pytest.mark.run
def test_a_folder_in_use_is_refused(tmp_path):
    checkpoint_in(tmp_path)
    lock = tmp_path / "first" / "run.lock"
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'a+'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print('x', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert "expected a run folder to itself, found that another process is training in it" in resumed(tmp_path)
        other.stdin.close()


@pytest.mark.parametrize("name", ["config.yaml", "stats.jsonl", "report.html", "probe.json", "release"])
@pytest.mark.parametrize("checkpoints", [False, True])
def test_a_folder_of_something_else_is_no_run_folder(tmp_path, name, checkpoints):
    """Neither is one of another project, with checkpoints of its own."""
    if checkpoints:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "1.pt").touch()
    (tmp_path / name).write_text("precious")
    message = f"found a folder with another {name}, which the run would replace; choose another"
    with pytest.raises(ConfigError, match=message), lock_run_folder(tmp_path):
        pass
    left = {path.name for path in tmp_path.iterdir()} - {"checkpoints"}
    assert left == {name} and (tmp_path / name).read_text() == "precious"
    for begun in ("checkpoints", "run.lock"):  # a run without one of them is still a run: copied, or not far
        folder = tmp_path / f"with {begun}"
        folder.mkdir()
        (folder / name).write_text("of the run")
        at = folder / {"checkpoints": "checkpoints/000000000048/state.json", "run.lock": "run.lock"}[begun]
        at.parent.mkdir(parents=True, exist_ok=True)
        at.touch()
        with lock_run_folder(folder):
            pass


def test_files_that_a_run_does_not_write_are_no_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with lock_run_folder(tmp_path):
        pass
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_results_of_a_probe_go_into_the_run_and_into_no_project_around_a_release(tmp_path):
    project = tmp_path / "project"
    release = project / "models" / "photos"
    for folder in (
        release,
        project / "release",
        project / "run" / "checkpoints" / "000000000064",
        project / "run/best/1",
    ):
        folder.mkdir(parents=True)
    for file in (project / "config.yaml", project / "models" / "config.yaml", project / "run" / "config.yaml"):
        file.write_text("mine")
    assert results_folder(str(release)) == release, "config.yaml is a usual name"
    run = project / "run"
    for inside in ("", "checkpoints", "checkpoints/000000000064", "best", "best/1"):
        assert results_folder(str(run / inside)) == run, inside
    assert results_folder(str(project / "release")) == project, "RUN/release, as every run has it"
    (release / "report.html").write_text("<title>my thesis</title>")
    with pytest.raises(ReportError, match="report.html: expected the page of a run, or none, found another page; move"):
        results_folder(str(release))
    (release / "report.html").write_text("<title>photos · BigBiGAN</title>")
    assert results_folder(str(release)) == release


def test_names_among_the_checkpoints_that_are_none(tmp_path):
    folder = checkpoint_in(tmp_path).parent
    for name in ("²", "٣", "-1", "1e3", "notes", ".writing-1", "1" * 200):
        (folder / name).mkdir()
    (folder / "7").write_text("a file")
    assert [p.name for p in complete(folder)] == [f"{48:012d}"]
    assert load_model(tmp_path / "first").card["images_seen"] == 48


class Malicious:
    """Write a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


@pytest.mark.run
def test_no_file_that_we_read_is_unpickled(made, tmp_path, monkeypatch):
    """Put a malicious pickle, bare and as torch saves it, under every name that the library looks for."""
    planted = tmp_path / "planted"
    bare = pickle.dumps(Malicious(planted))
    torch.save(Malicious(planted), tmp_path / "torch.pt")
    pickle.loads(bare)
    assert planted.exists(), "it is malicious"
    planted.unlink()
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    for i, content in enumerate((bare, (tmp_path / "torch.pt").read_bytes())):
        root = tmp_path / str(i)
        folder = checkpoint_in(root)
        run = root / "first"
        shutil.copytree(made, run / "release")
        targets = [*folder.iterdir(), *(run / "release").iterdir()]
        targets += [run / name for name in ("config.yaml", "stats.jsonl", "probe.json", "report.html")]
        targets += [
            folder / "best.json",
            *(run / "release" / n for n in ("pytorch_model.bin", "model.pt", "model.ckpt", "data.pkl")),
        ]
        for target in targets:
            kept = target.read_bytes() if target.exists() else None
            target.write_bytes(content)
            try:
                load_model(folder if target.parent == folder else run)
            except CheckpointError as error:
                assert "\n" not in str(error)
            if kept is None:
                target.unlink()
            else:
                target.write_bytes(kept)
        for target in (run / "stats.jsonl", run / "config.yaml", run / "probe.json"):
            target.write_bytes(content)
        train(
            root, *SMALLEST, "--run.name=first", "--run.images=72", "--run.statistics_images=16", "--model.init_from="
        )
        data = root / "data"
        for name in (
            "a.png",
            "b.jpg",
            "x.parquet",
            "x.arrow",
            "saved/dataset_info.json",
            "saved/state.json",
            "mine.yaml",
        ):
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).write_bytes(content)
            path = data / "saved" if "saved" in name else data / name
            with pytest.raises(DataError):
                open_images(str(path))
        train(root, f"--config={data / 'mine.yaml'}", code=2)
        for name in ("a.png", "b.jpg"):
            with pytest.raises(InputError):
                bigbigan.encode(data / name, made)
        assert not planted.exists()


def test_no_module_knows_how_to_unpickle():
    """Find every call that could unpickle code: the only one is a torch.load that takes tensors only."""
    words = (
        "import pickle", "import dill", "import joblib", "import shelve", "import marshal", "np.load(", "read_pickle",
        "trust_remote_code", "weights_only=False", "yaml.load(", "unsafe_load", "torch.load(path)",
    )  # fmt: skip
    for folder in ("bigbigan", "eval_linear"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = re.sub(r"np\.load\([^()]*, allow_pickle=False\)", "", path.read_text())
            assert not [word for word in words if word in text], path
            assert text.count("torch.load(") == text.count("weights_only=True"), path
