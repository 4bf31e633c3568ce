"""The real commands: train, resume, stop, two processes, other data, fine-tuning, refusals."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from bigbigan.release.load import load_model
from tests.conftest import ROOT, SHARED, TINY_RUN, launch, train


def weights(run, images=240):
    found = {}
    for file in sorted((run / "checkpoints" / f"{images:012d}").glob("*.safetensors")):
        found |= {f"{file.name}/{k}": v.numpy() for k, v in load_file(file).items()}
    assert found
    return found


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def stats(run):
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_it_should(run_folder):
    assert {p.name for p in run_folder.iterdir()} == {
        "config.yaml",
        "report.html",
        "stats.jsonl",
        "samples",
        "reconstructions",
        "checkpoints",
        "release",
        "run.lock",
    }
    files = {"config.json", "model.safetensors", "README.md", "samples.png"}
    assert {p.name for p in (run_folder / "release").iterdir()} == files
    assert [p.name for p in sorted((run_folder / "samples").iterdir())] == [f"{n:012d}.png" for n in (120, 240)]
    lines = stats(run_folder)
    logged = [line for line in lines if "loss_d" in line]
    assert [line["images_seen"] for line in logged] == list(range(24, 241, 24))
    scores = [f"score_{t}_{side}" for t in ("x", "z", "xz") for side in ("real", "fake")]
    assert all(
        np.isfinite(line[name]) for line in logged for name in [*scores, "loss_d", "loss_eg", "images_per_second"]
    )
    assert lines[-1]["reconstruction_error_relative"] > 0 and lines[-1]["n_test"] == 359
    grid = Image.open(run_folder / "reconstructions" / f"{240:012d}.png")
    assert grid.size[0] > 90 and np.asarray(grid).std() > 10, "tiny images are enlarged so that one can see them"
    text = (run_folder / "release" / "README.md").read_text()
    assert "240" in text and "random pairs (n = 359)" in text


@pytest.mark.run
def test_a_card_that_was_edited_stays(tmp_path):
    """One that nobody edited is written anew, with the figures of the longer run."""
    flags, card = ("--run.name=cards", "--run.probe=False"), tmp_path / "cards" / "release" / "README.md"
    train(tmp_path, *flags, "--run.images=48")
    text = card.read_text()
    train(tmp_path, *flags, "--run.images=48")
    assert card.read_text() == text and "| 48 |" in text
    train(tmp_path, *flags, "--run.images=96")
    text = card.read_text()
    assert "| 96 |" in text and "random pairs (n = 359)" in text
    card.write_text(edited := text.replace("# cards", "# My model"))
    for images in (96, 120):
        train(tmp_path, *flags, f"--run.images={images}")
        assert card.read_text() == edited
    card.unlink()
    train(tmp_path, *flags, "--run.images=120")
    assert "| 120 |" in card.read_text()


@pytest.mark.run
def test_accelerate_launches_it_from_anywhere(tmp_path):
    command = ["-m", "accelerate.commands.launch", "--cpu", ROOT / "bigbigan" / "train.py"]
    out, _ = launch(*command, *TINY_RUN, "--run.images=24", "--run.probe=True", cwd=tmp_path)
    assert "runs/digits: 24 images seen" in out and "linear, full batch" in out and "finished: 24 images" in out
    assert (tmp_path / "runs" / "digits" / "probe.json").is_file()


@pytest.mark.run
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(run_folder, tmp_path):
    train(tmp_path, "--run.name=cut", "--run.images=96", "--run.probe=False")
    out, _ = train(tmp_path, "--run.name=cut", "--run.probe=False")
    assert "resumed from" in out and "at 96 images" in out
    assert same(weights(tmp_path / "cut"), weights(run_folder))
    strip = lambda line: {k: v for k, v in line.items() if k != "images_per_second"}  # noqa: E731
    ours, theirs = ([strip(x) for x in stats(run) if "loss_d" in x] for run in (tmp_path / "cut", run_folder))
    assert ours == theirs
    images = [(run / "samples" / f"{240:012d}.png").read_bytes() for run in (tmp_path / "cut", run_folder)]
    assert images[0] == images[1]
    again, _ = train(tmp_path, "--run.name=cut", "--run.probe=False")
    assert "finished: 240 images" in again, "a finished run says so again"


def begin(root, *flags):
    command = [
        sys.executable,
        str(ROOT / "bigbigan" / "train.py"),
        *TINY_RUN,
        f"--run.root={root}",
        "--run.images=100000000",
        *flags,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.time() + 120
    while not list(root.glob("*/checkpoints/0*")):
        assert process.poll() is None, process.stdout.read()
        assert time.time() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.run
def test_a_stop_is_clean_and_loses_nothing(tmp_path):
    """The whole group is signalled, decoding workers too, as schedulers do; tests/runs/test_commands.py: terminals."""
    process = begin(
        tmp_path, "--run.name=stopped", "--run.checkpoint_every=480", "--data.cache=none", "--data.workers=1"
    )
    os.killpg(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    seen = int(out.split("stopped at ")[1].split(" images")[0].replace(",", ""))
    newest = max(int(p.name) for p in (tmp_path / "stopped" / "checkpoints").iterdir())
    assert seen == newest, "everything up to the signal is in a checkpoint"
    out, _ = train(
        tmp_path, "--run.name=stopped", f"--run.images={seen + 48}", "--run.checkpoint_every=480", "--run.probe=False"
    )
    assert f"at {seen:,} images" in out


@pytest.mark.run
def test_a_kill_loses_only_what_came_after_the_checkpoint(run_folder, tmp_path):
    process = begin(tmp_path, "--run.name=killed")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    checkpoints = tmp_path / "killed" / "checkpoints"
    begun = max(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
    images = max(240, -(-begun // 240) * 240)
    train(tmp_path, "--run.name=killed", f"--run.images={images}", "--run.probe=False")
    train(tmp_path, "--run.name=straight", f"--run.images={images}", "--run.probe=False")
    assert same(weights(tmp_path / "killed", images), weights(tmp_path / "straight", images))


@pytest.mark.run
def test_two_processes_follow_one(run_folder, tmp_path):
    """torchrun with gloo: joined statistics, averaged gradients, noise by global index → the same run up to
    rounding."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", ROOT / "bigbigan" / "train.py"]
    out, _ = launch(
        *torchrun, *TINY_RUN, f"--run.root={tmp_path}", "--run.name=two", "--run.probe=False", "--run.images=120"
    )
    assert "8 = 2 processes × 1 chunk × 4 images" in out
    assert weights(run_folder).keys() == weights(tmp_path / "two", 120).keys()
    ours, theirs = ([x for x in stats(run) if "loss_d" in x] for run in (tmp_path / "two", run_folder))
    for a, b in zip(ours[:5], theirs[:5], strict=True):
        assert a["images_seen"] == b["images_seen"]
        for key in a:
            if key.startswith(("loss", "score")):
                assert a[key] == pytest.approx(b[key], abs=0.02, rel=0.02), (a["images_seen"], key)


@pytest.mark.run
def test_another_configuration_is_refused(run_folder):
    out, err = train(
        run_folder.parent, f"--run.name={run_folder.name}", "--optim.encoder_lr=0.5", "--run.probe=False", code=2
    )
    assert "optim.encoder_lr: 0.004 → 0.5" in err and "--run.accept_changes" in err and "Traceback" not in err


@pytest.mark.run
def test_own_images_fine_tune_a_release(run_folder, image_folder, tmp_path):
    flags = [
        f"--data.path={image_folder}",
        f"--model.init_from={run_folder}",
        "--data.augment=resnet",
        "--data.flip=True",
    ]
    _, err = train(
        tmp_path, "--config=small", "--run.name=tuned", *flags, "--run.images=48", "--model.latent_dim=100", code=2
    )
    assert f"--model.init_from {run_folder}: its weights are of one architecture" in err
    assert "expected --model.latent_dim 8 (found 100); leave" in err
    out, _ = train(tmp_path, "--config=small", "--run.name=tuned", *flags, "--run.images=48")
    assert f"from {run_folder}, with its architecture" in out
    assert "linear, full batch" in out and "14 images, 2 classes" in out
    config = json.loads((tmp_path / "tuned" / "release" / "config.json").read_text())
    assert config["model"]["latent_dim"] == 8
    out, _ = train(tmp_path, "--config=small", "--run.name=tuned", *flags, "--run.images=96")
    assert "resumed from" in out


@pytest.mark.run
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--data.path=/no/such"],
            "--data.path /no/such: expected a folder, a file or a data set's name, found no such folder or file",
        ),
        (["--model.encoder=resnetv2_5"], "did you mean"),
        (["--model.image_size=9", "--model.encoder_image_size=0"], "image_size 9: expected b·2^k"),
        (["--model.init_from=nowhere"], "expected a run folder, checkpoint, release or hub id"),
        (["--model.classes=3"], "--model.classes 3: expected data with as many classes, found 10"),
        (["--run.trackers=nosuchtracker"], "--run.trackers nosuchtracker: expected trackers of Accelerate"),
        (["--data.batch_sise=3"], "did you mean --data.batch_size?"),
    ],
)
def test_mistakes_are_one_message_and_status_2(tmp_path, flags, message):
    out, err = train(tmp_path, *flags, code=2)
    assert message in " ".join((out + err).replace("│", " ").split()) and "Traceback" not in err
    assert not list(tmp_path.iterdir()), "nothing was written"


@pytest.mark.run
def test_half_precision_and_sharding_are_refused(tmp_path):
    for variables, message in (
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "expected no or bf16"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed: expected plain data parallelism"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP: expected plain data parallelism"),
    ):
        _, err = train(tmp_path / "refused", code=2, env=variables)
        assert message in err and "Traceback" not in err


@pytest.mark.run
def test_variants_train(tmp_path):
    """Chunks, bf16, a conditional model, the deterministic uniform variant, BiGAN's loss, High Res E: a few updates
    each."""
    short = ["--run.images=48", "--run.probe=False"]
    train(tmp_path, "--run.name=chunks", "--data.chunks=2", "--run.precision=bf16", *short)
    train(tmp_path, "--run.name=conditional", "--model.classes=10", *short)
    train(
        tmp_path,
        "--run.name=uniform",
        "--model.prior=uniform",
        "--model.posterior=tanh",
        "--loss.form=logistic",
        *short,
    )
    train(
        tmp_path,
        "--run.name=high",
        "--model.encoder_image_size=16",
        "--loss.unary_x=False",
        "--loss.unary_z=False",
        *short,
    )
    for name in ("chunks", "conditional", "uniform", "high"):
        assert (tmp_path / name / "release" / "config.json").is_file()


@pytest.mark.run
def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    train(tmp_path, "--run.name=board", "--run.trackers=tensorboard", "--run.images=48", "--run.probe=False")
    assert list((tmp_path / "board").rglob("events.out*"))


@pytest.mark.run
def test_an_exploding_run_ends_with_a_sentence(tmp_path):
    _, err = train(tmp_path, "--run.name=boom", "--optim.generator_lr=1e30", "--optim.encoder_lr=1e30", code=1)
    assert "expected finite numbers" in err and "Traceback" not in err


@pytest.mark.run
@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data are not here")
def test_cifar10_trains_by_one_flag_resumes_encodes_and_probes(tmp_path):
    flags = [
        "--config=cifar10",
        f"--data.path={SHARED / 'cifar10'}",
        "--model.image_size=32",
        "--data.augment=light",
        "--run.name=cifar",
    ]
    train(tmp_path, *flags, "--run.images=48", "--run.probe=False")
    out, _ = train(tmp_path, *flags, "--run.images=96", "--run.probe=False")
    assert "resumed from" in out and "50,000 images, 10 classes" in out
    import bigbigan
    from bigbigan.data import open_images

    images = open_images(str(SHARED / "cifar10"), "test", test=True)
    assert bigbigan.encode([images[i] for i in range(4)], tmp_path / "cifar", "z_mean").shape == (4, 8)


@pytest.mark.run
def test_help_names_every_section():
    out, _ = launch(ROOT / "bigbigan" / "train.py", "--help-all")
    for word in (
        "--model.image_size",
        "--data.path",
        "--run.images",
        "--optim.encoder_lr",
        "--loss.unary_x",
        "--dry-run",
        "digits",
    ):
        assert word in out


@pytest.mark.run
def test_evaluations_are_written_down_keep_the_best_and_do_not_disturb_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    flags = ("--run.name=a", "--run.probe=False", "--run.images=144", "--run.log_every=48")
    evaluating = ("--run.evaluate_images=60", "--run.best=top1_linear")
    train(tmp_path / "plain", *flags, *evaluating, "--run.evaluate_every=144")  # at the end alone
    out, _ = train(tmp_path / "looked", *flags, *evaluating, "--run.evaluate_every=72")
    assert same(weights(tmp_path / "plain" / "a", 144), weights(tmp_path / "looked" / "a", 144))
    figures = [line for line in stats(tmp_path / "looked" / "a") if "top1_linear" in line]
    assert [line["images_seen"] for line in figures] == [72, 144]
    expected = {
        "top1_linear",
        "top1_knn",
        "is_classifier_digits_n60",
        "fid_classifier_digits_train_n60",
        "reconstruction_error_relative",
    }
    assert expected <= set(figures[0]) and "linear probe " in out
    (kept,) = (tmp_path / "looked" / "a" / "best").iterdir()
    best = max(figures, key=lambda line: line["top1_linear"])
    note = json.loads((kept / "best.json").read_text())
    on = "144 training images held out for choices"
    assert int(kept.name) == best["images_seen"]
    assert note == {"figure": "top1_linear", "value": best["top1_linear"], "chosen_on": on}
    model = load_model(tmp_path / "looked" / "a" / "best")
    assert model.card["images_seen"] == best["images_seen"]


@pytest.mark.run
def test_a_best_figure_that_is_not_measured_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    _, err = train(tmp_path, "--run.best=top1", code=2)
    assert "expected --run.evaluate_every too" in err
    _, err = train(
        tmp_path, "--run.name=b", "--run.evaluate_every=24", "--run.evaluate_images=60", "--run.best=elo", code=2
    )
    assert "--run.best elo: expected a figure of the evaluations" in err and "begins: top1_linear" in err
