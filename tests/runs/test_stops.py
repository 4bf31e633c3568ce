"""How a run ends before its time and goes on: signals, time limits, lost processes, locks, other sizes, old
checkpoints."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bigbigan.release.load import load_model
from bigbigan.training.checkpoint import complete
from tests.conftest import ROOT, TINY_RUN, launch, picture, train
from tests.helpers.children import SMALLEST, Fault, Run, finish

ENDLESS = ("--run.images=100000000", "--run.checkpoint_every=96", "--run.sample_every=100000000", "--run.log_every=24")
FIXTURE = ROOT / "tests" / "fixtures" / "checkpoint-format-1"
RESUMED = ROOT / "tests" / "fixtures" / "resumed-by-the-first-version"


@contextlib.contextmanager
def ended(process):
    """Kill the process at the end of this context if it still runs."""
    try:
        yield
    finally:
        process.kill()


def newest(root) -> int:
    return int(complete(root / "run" / "checkpoints")[-1].name)


def tensors(folder):
    return {f"{file.name}/{k}": v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.run
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_to_one_of_two_processes_stops_both_with_a_checkpoint(tmp_path, number, status):
    run = Run(tmp_path, *ENDLESS, processes=2)
    run.until("96 images")
    run.send(number, 1)
    statuses = run.wait(30)
    assert statuses == [75, status], "the process that got the signal tells which"
    assert f"stopped at {newest(tmp_path):,} images; the same command goes on from" in run.text()


@pytest.mark.run
def test_a_closed_terminal_stops_with_a_checkpoint_and_a_closed_pipe_does_not_stop(tmp_path):
    flags = [*SMALLEST, *ENDLESS, f"--run.root={tmp_path}", "--run.name=run"]
    command = [sys.executable, "bigbigan/train.py", *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process, ended(process):
        assert any("images" in line and "scores" in line for line in process.stdout)
        process.stdout.close()  # as `| head` does
        began = time.monotonic()
        while not (written := complete(tmp_path / "run" / "checkpoints")) or int(written[-1].name) < 480:
            assert process.poll() is None and time.monotonic() < began + 60
            time.sleep(0.1)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 75, process.stderr.read()
    lines = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert 480 <= lines[-1]["images_seen"] <= newest(tmp_path)


@pytest.mark.run
def test_ctrl_c_twice_ends_at_once_and_tears_nothing(tmp_path):
    """The first waits for a slow file system, the second does not."""
    run = Run(tmp_path, *ENDLESS, fault=Fault(-1, "slow"))
    run.until("96 images")
    run.send(signal.SIGINT)
    time.sleep(0.05)
    run.send(signal.SIGINT)
    assert run.wait(30) == [130] and "Traceback" not in run.text()
    assert "interrupted; the same command goes on" in run.text() or "stopped at" in run.text()
    there = complete(tmp_path / "run" / "checkpoints")
    seen = int(there[-1].name) if there else 0
    text = finish(tmp_path, f"--run.images={seen + 24}")
    assert (f"at {seen} images" in text) == bool(seen)


@pytest.mark.run
def test_a_time_limit_ends_with_a_checkpoint_and_a_status_to_run_again(tmp_path):
    run = Run(tmp_path, *ENDLESS, "--run.checkpoint_every=100000000", "--run.stop_after=0.05")
    assert run.wait(60) == [75], run.text()
    assert f"stopped at {newest(tmp_path):,} images" in run.text()
    seen = newest(tmp_path)
    assert f"at {seen:,} images" in finish(tmp_path, f"--run.images={seen + 24}", "--run.stop_after=10")


@pytest.mark.run
def test_a_stop_abandons_an_evaluation_which_the_next_start_makes(tmp_path, monkeypatch):
    """The evaluation is after its checkpoint, and not waited for."""
    import eval_linear.quick

    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(24):
        picture(i).save(photos / f"{i}.png")
    flags = [
        *SMALLEST,
        f"--data.path={photos}",
        "--run.name=run",
        "--run.evaluate_every=48",
        "--run.evaluate_images=20",
    ]
    before, asked = eval_linear.quick.quick_figures, []

    def interrupted(*arguments):
        asked.append(0)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("expected to be abandoned")

    monkeypatch.setattr(eval_linear.quick, "quick_figures", interrupted)
    out, _ = train(tmp_path, *flags, code=75)
    assert "stopped at 48 images" in out and asked == [0] and newest(tmp_path) == 48
    monkeypatch.setattr(eval_linear.quick, "quick_figures", before)
    train(tmp_path, *flags)
    lines = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [x["images_seen"] for x in lines if not {"loss_d", "n_test", "spectra"} & x.keys()] == [48, 96]


@pytest.mark.run
def test_under_torchrun_a_stop_is_not_a_failure_to_restart(tmp_path):
    run = Run(tmp_path, *ENDLESS, "--run.stop_after=0.05", env={"TORCHELASTIC_RUN_ID": "x"})
    assert run.wait(60) == [0] and "stopped at" in run.text()


@pytest.mark.run
def test_when_a_process_dies_the_other_ends_with_a_sentence(tmp_path):
    run = Run(tmp_path, *ENDLESS, processes=2)
    run.until("96 images")
    run.send(signal.SIGKILL, 1)
    assert run.wait(30) == [1, -9]
    assert "expected all processes of the run at a common step, found one gone" in run.text()
    assert "the same command goes on from the newest checkpoint" in run.text() and "Traceback" not in run.text()


@pytest.mark.run
def test_a_process_that_meets_nobody_ends_with_a_sentence(tmp_path):
    run = Run(tmp_path, "--run.timeout=0.03", processes=2, absent=1)
    assert run.wait(60) == [1]
    assert "expected 2 processes to meet within --run.timeout" in run.text() and "Traceback" not in run.text()


@pytest.mark.run
def test_a_silent_process_is_waited_for_no_longer_than_the_timeout(tmp_path):
    run = Run(tmp_path, *ENDLESS, "--run.timeout=0.05", processes=2)
    run.until("96 images")
    run.send(signal.SIGSTOP, 1)
    run.processes[0].join(40)
    assert run.processes[0].exitcode == 1 and "silent for longer than --run.timeout" in run.text()
    run.send(signal.SIGKILL, 1)
    run.wait()


@pytest.mark.run
def test_a_second_run_in_the_same_folder_is_refused_and_the_lock_dies_with_its_process(tmp_path):
    first = Run(tmp_path, *ENDLESS)
    first.until("96 images")
    (tmp_path / "other").mkdir()
    _, err = train(tmp_path, *SMALLEST, "--run.name=run", code=2)
    pid = first.processes[0].pid
    assert (
        f"expected a run folder to itself, found that process {pid} of " in err and "choose another --run.name" in err
    )
    train(tmp_path, *SMALLEST, "--run.name=run", "--dry-run")
    assert first.processes[0].exitcode is None, "the first is not disturbed"
    first.send(signal.SIGKILL)
    first.wait()
    seen = newest(tmp_path)
    finish(tmp_path, f"--run.images={seen + 24}")


@pytest.mark.run
def test_another_world_size_and_an_accepted_batch_size_continue_at_the_same_image(tmp_path):
    finish(tmp_path, "--run.images=48", processes=2)
    assert "at 48 images" in finish(tmp_path, "--run.images=96")
    _, err = train(tmp_path, *SMALLEST, "--run.name=run", "--run.images=144", "--data.batch_size=16", code=2)
    assert "data.batch_size: 8 → 16" in err and "--run.accept_changes True" in err
    more = ("--run.images=144", "--data.batch_size=16", "--run.accept_changes=True")
    assert "at 96 images" in finish(tmp_path, *more, processes=2)
    finish(tmp_path / "one", "--run.images=96")
    ours, theirs = (
        {x["images_seen"]: x["loss_d"] for x in map(json.loads, stats.read_text().splitlines()) if "loss_d" in x}
        for stats in (tmp_path / "run" / "stats.jsonl", tmp_path / "one" / "run" / "stats.jsonl")
    )
    assert list(ours) == [24, 48, 72, 96, 144]
    assert [ours[at] for at in theirs] == pytest.approx(list(theirs.values()), rel=0.02), (
        "other images have other losses"
    )


@pytest.mark.run
def test_machines_without_a_common_folder_are_refused(tmp_path):
    """A process that finds no checkpoint where another has one."""
    finish(tmp_path / "a", "--run.images=24")
    run = Run(tmp_path / "b", "--run.images=24", processes=2, roots=[tmp_path / "a", tmp_path / "b"])
    assert run.wait() == [2, 2]
    assert "found those at [24, 0] images; all machines need the same --run.root" in run.text()


@pytest.mark.run
def test_a_process_with_decoding_workers_ends_too_when_another_dies(tmp_path):
    """Workers ignore SIGTERM: unless their loader is closed, the interpreter waits for them for ever."""
    (tmp_path / "photos").mkdir()
    for i in range(20):
        picture(i, (12 + i % 5, 10)).save(tmp_path / "photos" / f"{i}.png")
    flags = (f"--data.path={tmp_path / 'photos'}", "--data.cache=none", "--data.workers=2")
    run = Run(tmp_path, *ENDLESS, *flags, processes=2)
    run.until("96 images")
    run.send(signal.SIGKILL, 1)
    assert run.wait(30) == [1, -9] and "Traceback" not in run.text()


@pytest.mark.run
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_decoding_workers_gives_the_same_run(tmp_path_factory, tmp_path, workers):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(20):
        picture(i, (12 + i % 5, 10)).save(folder / f"{i}.png")
    (folder / "7.png").write_bytes(b"no image")
    common = tmp_path_factory.getbasetemp() / "workers"
    flags = (
        f"--data.path={folder}",
        "--data.augment=resnet",
        "--data.flip=True",
        "--data.cache=none",
        "--data.max_unreadable=0.5",
    )
    finish(tmp_path, *flags, "--run.images=48", f"--data.workers={workers}")
    found = tensors(complete(tmp_path / "run" / "checkpoints")[-1])
    if not common.is_dir():
        shutil.copytree(complete(tmp_path / "run" / "checkpoints")[-1], common)
    assert same(found, tensors(common))


@pytest.mark.run
def test_a_checkpoint_of_format_1_loads_and_goes_on(tmp_path):
    """Written by the first version that had the format. If this fails, no user's run can be resumed: read old keys, old
    names."""
    shutil.copytree(FIXTURE, tmp_path / "first" / "checkpoints")
    model = load_model(tmp_path / "first")
    assert model.card["images_seen"] == 48
    images = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8)
    expected = [-1.5230, -0.9126]  # what that version gave
    with torch.no_grad():
        assert model.encoder(images).mean[:, 0].tolist() == pytest.approx(expected, abs=2e-3)
    flags = ("--run.name=first", "--run.images=72", "--run.statistics_images=16")
    out, _ = train(tmp_path, *SMALLEST, *flags)
    assert "at 48 images" in out and complete(tmp_path / "first" / "checkpoints")[-1].name == f"{72:012d}"
    _, err = train(tmp_path, *SMALLEST, *flags, "--optim.encoder_lr=0.5", code=2)
    assert "optim.encoder_lr: 0.004 → 0.5" in err and "absent" not in err


@pytest.mark.run
def test_a_run_of_an_older_version_becomes_what_it_would_have_become(tmp_path):
    """The fixture, resumed to 96 images by the version before the rooms moved: equal bit for bit where it was made.

    Other processors round otherwise. Adam enlarges that where a gradient is nearly zero: in biases before batch norms.
    """
    shutil.copytree(FIXTURE, tmp_path / "first" / "checkpoints")
    train(tmp_path, *SMALLEST, "--run.name=first", "--run.images=96", "--run.statistics_images=16", "--run.probe=False")
    found = tensors(tmp_path / "first" / "checkpoints" / f"{96:012d}")
    expected, before = tensors(RESUMED), tensors(next(FIXTURE.iterdir()))
    pairs = [(found[k] - v, v - before[k]) for k, v in expected.items() if v.is_floating_point()]
    apart = [float(off.norm() / moved.norm().clamp_min(1e-6)) for off, moved in pairs]
    assert sorted(apart)[len(apart) // 2] < 1e-4, "how far a tensor is from the expected one, relative to how it moved"
    off, moved = (torch.cat([part.flatten() for part in side]).norm() for side in zip(*pairs, strict=True))
    assert off / moved < 0.01, "the same of all tensors together"


def test_the_fixtures_are_small():
    assert sum(file.stat().st_size for folder in (FIXTURE, RESUMED) for file in folder.rglob("*")) < 600_000


@pytest.mark.run
@pytest.mark.soak
def test_torchrun_restarts_from_the_checkpoint(tmp_path):
    """One of two workers is killed; torchrun starts both again, and the run ends as without."""
    flags = [f"--run.root={tmp_path}", "--run.name=run", "--run.images=96000", "--run.sample_every=1000000"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=3"]
    command += [str(ROOT / "bigbigan" / "train.py"), *SMALLEST, *flags]
    with open(tmp_path / "out", "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while "96 images" not in (tmp_path / "out").read_text():
                assert process.poll() is None, (tmp_path / "out").read_text()
                time.sleep(0.1)
            holder = int((tmp_path / "run" / "run.lock").read_text().split()[1])
            os.kill(holder, signal.SIGKILL)
            started = time.monotonic()
            while "resumed from" not in (tmp_path / "out").read_text():
                assert process.poll() is None and time.monotonic() < started + 120, (tmp_path / "out").read_text()
                time.sleep(0.1)
            print(f"goes on after {time.monotonic() - started:.0f} s")
            os.kill(process.pid, signal.SIGTERM)
            process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    text = (tmp_path / "out").read_text()
    assert "stopped at" in text, text


@pytest.mark.run
@pytest.mark.soak
def test_two_machines_on_one(tmp_path):
    """Two launchers with a worker each meet at one rendezvous, as docs/launching.md says; the run is that of two
    processes."""
    from tests.helpers.children import free_port

    port = free_port()
    flags = [*TINY_RUN, "--run.images=48", "--run.probe=False", f"--run.root={tmp_path}", "--run.name=run"]
    machine = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d",
        f"--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=run", str(ROOT / "bigbigan" / "train.py"), *flags,
    ]  # fmt: skip
    machines = [
        subprocess.Popen(machine, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    said = "".join(m.communicate(timeout=240)[0] for m in machines)
    assert [m.returncode for m in machines] == [0, 0], said
    assert "8 = 2 processes" in said and "finished: 48 images" in said
    launch("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", ROOT / "bigbigan" / "train.py",
           *flags[:-1], "--run.name=again")  # fmt: skip
    ours, theirs = (tensors(complete(tmp_path / name / "checkpoints")[-1]) for name in ("run", "again"))
    assert same(ours, theirs)
    assert np.isfinite(sum(float(v.double().sum()) for v in ours.values()))
