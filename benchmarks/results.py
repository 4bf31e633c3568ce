"""Measure the results that need a GPU, one leg at a time, in calls of a few minutes.

    benchmarks/results.sh LEG [PIECE ...]

A call works on what is left of the leg for MINUTES, writes the results to OUT, and prints the next call. The same
command continues, however the last one ended. Exit status: 0 complete, 75 call again, 1 a failure that a sentence
explains. docs/results/gpu.md describes the legs and the environment variables.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.candidates import CANDIDATES
from benchmarks.results_pages import collect, last_line, stats_of, trained_seconds
from bigbigan.files import write_text_whole

ROOT = Path(__file__).resolve().parent.parent
AGAIN = 75
GRACE = 40  # seconds that a process has between SIGTERM and SIGKILL: for a checkpoint
STARTUP = 25  # seconds of a run before its first image, as estimated
SMALL = "cifar10_small"
ROWS = (  # of leg C
    "base deterministic_e uniform_prior x_unary_only z_unary_only no_unaries small_g_third no_e high_res_e resnet_e_lr"
)
# Leg D: the preset imagenette64 at two sizes, and E at twice G's size (High Res E).
AT_128 = (
    "--model.image_size 128 --model.latent_dim 120 --model.generator_attention 64 --model.discriminator_attention 64"
)
SIZES = {"64": "", "64-e128": "--model.encoder_image_size 128", "128": AT_128}
TOY_NETWORKS = """
    --model.image_size 8 --model.latent_dim 8 --model.generator_width 2 --model.generator_attention 0
    --model.discriminator_width 2 --model.discriminator_attention 0 --model.mlp_width 16 --model.mlp_layers 2
    --model.encoder_width 0.125 --model.encoder_mlp_width 16 --model.encoder_mlp_layers 2
    --data.batch_size 32 --data.workers 0 --run.log_every 960 --run.sample_every 9600 --run.checkpoint_every 4800
    --run.spectra_every 0 --run.statistics_images 64 --run.grid 2
    --run.evaluate_every 0 --run.compile off --run.threads 1
"""
TOY_SIZES = {
    "64": "",
    "64-e128": "--model.encoder_image_size 16",
    "128": "--model.image_size 16",
}


class Failure(Exception):
    """Stop a leg until somebody has looked: the message says what was expected, what was found, and what to do."""


class Call:
    """Hold one call: its leg, its clock, its folders, and the processes that it has started."""

    def __init__(self, leg: str, env=os.environ):
        self.leg, self.toy = leg, bool(env.get("TOY"))
        self.python = env.get("PYTHON") or sys.executable
        self.minutes = float(env.get("MINUTES") or 9)
        self.deadline = time.monotonic() + 60 * self.minutes
        self.work = Path(env.get("WORK") or ROOT / "runs" / ("results-toy" if self.toy else "results")).resolve() / leg
        self.out = Path(env.get("OUT") or self.work / "out").resolve()
        self.data = env.get("DATA") or ("digits" if self.toy else "")
        self.at_once = int(env.get("AT_ONCE") or (2 if self.toy else 8 if leg == "C" else 4))
        self.compare = float(env.get("COMPARE_MINUTES") or (0.05 if self.toy else 2))
        self.train = float(env.get("TRAIN_MINUTES") or (0.1 if self.toy else 20 if leg == "B" else 15))
        self.images, self.rows = int(env.get("IMAGES") or 1_000_000), env.get("ROWS") or ROWS
        self.seeds = env.get("SEEDS") or "0 1"
        self.winner, self.more, self.probe_flags = env.get("WINNER", ""), env.get("FLAGS", ""), env.get("PROBE", "")
        self.cache = self.work.parent / "cache"
        self.peak_mib = 0
        for folder in (self.work / "logs", self.out):
            folder.mkdir(parents=True, exist_ok=True)
        if leg != "E" and not self.data:
            what = "Imagenette's" if leg == "D" else "CIFAR-10's"
            wanted = f"expected DATA=FOLDER with {what} train-*.parquet and test-*.parquet"
            raise Failure(f"{wanted}, found no DATA; TOY=1 takes digits")
        if self.data != "digits" and leg != "E" and not Path(self.data).is_dir():
            raise Failure(
                f"DATA={self.data}: expected a folder with train-*.parquet and test-*.parquet, found no such folder"
            )

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def enough(self, seconds: float) -> bool:
        """Return whether that many seconds are left; for a rehearsal, whose work is small, a fifth is enough."""
        return self.left() > (seconds / 5 if self.toy else seconds)

    def together(
        self, commands: dict[str, list], threads: int = 0, until: dict[str, Callable[[], bool]] | None = None
    ) -> dict[str, int]:
        """Run commands at the same time, each with its log; return their exit statuses (124: killed).

        Each runs until it ends, or gets SIGTERM when its function in `until` says so or the call's time is over.
        """
        env = os.environ | {"BIGBIGAN_CACHE": str(self.cache), "PYTHON": self.python, "PYTHONUNBUFFERED": "1"}
        env |= {f"{name}_CACHE_DIR": str(self.cache / name.lower()) for name in ("TORCHINDUCTOR", "TRITON")}
        env |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
        running, statuses, asked = {}, {}, set()
        try:
            for name, command in commands.items():
                print(f"[{self.left():4.0f} s left] {name}: {shlex.join(map(str, command))}", flush=True)
                with open(self.log(name), "a") as log:
                    running[name] = subprocess.Popen(
                        [*map(str, command)], cwd=ROOT, env=env, stdout=log, stderr=log, preexec_fn=_die_with_parent
                    )
            while len(statuses) < len(running):
                time.sleep(0.1 if self.toy else 1)
                self.look_at_memory()
                statuses |= {name: p.returncode for name, p in running.items() if p.poll() is not None}
                for name in running.keys() - statuses.keys() - asked:
                    if self.left() < GRACE or (until and until[name]()):
                        asked.add(name)
                        running[name].terminate()
                if self.left() < 0:
                    break
        finally:
            late = {name: process for name, process in running.items() if process.poll() is None}
            for process in late.values():
                process.terminate()
            patience = time.monotonic() + GRACE
            for name, process in late.items():
                try:
                    process.wait(max(0, patience - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                statuses[name] = 124
        return statuses

    def one(self, name: str, command: list, until: Callable[[], bool] | None = None) -> int:
        return self.together({name: command}, until=until and {name: until})[name]

    def look_at_memory(self) -> None:
        """Record the largest use of GPU memory that nvidia-smi has shown during this call, in MiB."""
        if shutil.which("nvidia-smi") is None or time.monotonic() - getattr(self, "_looked", -9) < 3:
            return
        self._looked = time.monotonic()
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        answer = subprocess.run(query, capture_output=True, text=True).stdout.split()
        self.peak_mib = max([self.peak_mib, *(int(n) for n in answer if n.isdigit())])

    def log(self, name: str) -> Path:
        return self.work / "logs" / f"{name}.log"

    def failed(self, name: str, status: int) -> Failure:
        return Failure(f"{name} ended with status {status}: {last_line(self.log(name))} (see {self.log(name)})")

    def training(self, name: str, preset: str, flags: str, toy: str = "", **run) -> list:
        """Return the command of a run, which ends by itself before this call must; later flags win."""
        run = {"run.stop_after": round((self.left() - GRACE) / 60, 3), "run.images": 10**11, "run.probe": False} | run
        settings = [f"--{k.replace('__', '.')}={v}" for k, v in run.items()]
        fixed = ["--config", preset, f"--data.path={self.data}", f"--run.root={self.work}", f"--run.name={name}"]
        toys = shlex.split(f"{TOY_NETWORKS} {toy}") if self.toy else []
        return [self.python, "bigbigan/train.py", *fixed, *shlex.split(flags), *toys, *settings]


def _die_with_parent() -> None:
    """On Linux, send a child SIGTERM when its parent is killed, so that it writes a checkpoint and ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def classifier(call: Call) -> str:
    """Train the classifier whose features FID and IS use, before several runs need it at once."""
    size = 8 if call.toy else 32
    return _once(call, "classifier", [call.python, "benchmarks/results_figures.py", "classifier", call.data, size], 60)


def _once(call: Call, name: str, command: list, seconds: float) -> str:
    """Run a command unless it has succeeded before; return what is left to do."""
    mark = call.work / f"{name}.done"
    if mark.is_file():
        return ""
    if not call.enough(seconds):
        return "not begun"
    status = call.one(name, command)
    if status in (124, -15, 143):
        return "cut, and will be begun again"
    if status:
        raise call.failed(name, status)
    mark.write_text("")
    return ""


def compare(call: Call) -> str:
    """Train the candidates for a short time, several at once, and write their quick figures to the ledger."""
    path = call.work / "ledger.json"
    names = list(CANDIDATES)[: 3 if call.toy else None]
    while True:
        ledger = json.loads(path.read_text()) if path.is_file() else []
        todo = [name for name in names if name not in {entry["name"] for entry in ledger}]
        if not todo:
            return ""
        if not call.enough(60 * call.compare + 2 * STARTUP + GRACE):
            return f"{len(todo)} of {len(names)} candidates to go"
        wave = {f"try-{list(CANDIDATES).index(name)}": name for name in todo[: call.at_once]}
        threads = max(1, (os.cpu_count() or 1) // len(wave))
        for run in wave:  # one that was killed halfway begins anew, so that all have the same time
            shutil.rmtree(call.work / run, ignore_errors=True)
        run_flags = {"run.threads": threads, "data.workers": threads, "run.log_every": 960 if call.toy else 20_000}
        statuses = call.together(
            {run: call.training(run, *CANDIDATES[name], **run_flags) for run, name in wave.items()},
            threads,
            {run: partial(_trained, call, run, 60 * call.compare) for run in wave},
        )
        if call.left() < GRACE:
            return f"{len(todo)} of {len(names)} candidates to go, {len(wave)} of them were cut"
        figures = [call.python, "benchmarks/results_figures.py", "quick"]
        limit = 200 if call.toy else 10_000
        good = [run for run in wave if statuses[run] == AGAIN]
        ended = call.together({f"{run}-figures": [*figures, call.work / run, limit] for run in good}, threads)
        if set(ended.values()) & {124, -15, 143}:
            return f"{len(todo)} of {len(names)} candidates to go, the figures of {len(wave)} were cut"
        for run, name in wave.items():
            found = call.work / run / "figures.json"
            entry = {"name": name, "preset": CANDIDATES[name][0], "flags": CANDIDATES[name][1], "run": run}
            entry |= json.loads(found.read_text()) if found.is_file() else {"failed": last_line(call.log(run))}
            ledger.append(entry | {"at_once": len(wave), "minutes": call.compare})
            shutil.rmtree(call.work / run / "checkpoints", ignore_errors=True)
        write_text_whole(path, json.dumps(ledger, indent=1) + "\n")


def chosen(call: Call) -> tuple[str, str, str]:
    """Return the full run's candidate: name, preset, flags.

    WINNER names it; by default it has the best linear probe in the ledger of leg A.
    """
    path = call.work / "chosen.json"
    if path.is_file():  # a run keeps to its settings
        return tuple(json.loads(path.read_text()))
    source = call.work.parent / "A" / "ledger.json"
    ledger = [e for e in (json.loads(source.read_text()) if source.is_file() else []) if "top1_linear" in e]
    name = call.winner or (max(ledger, key=lambda e: e["top1_linear"])["name"] if ledger else "base")
    if name not in CANDIDATES:
        raise Failure(f"WINNER={name}: expected one of {', '.join(CANDIDATES)}")
    preset, flags = CANDIDATES[name]
    if call.leg == "B":
        words = shlex.split(flags)
        pairs = zip(words[::2], words[1::2], strict=True)
        preset, flags = SMALL, shlex.join(w for k, v in pairs if not k.startswith("--model.") for w in (k, v))
    result = name, preset, f"{flags} {call.more}".strip()
    write_text_whole(path, json.dumps(result) + "\n")
    return result


def full(call: Call) -> str:
    """Train the winner for TRAIN_MINUTES in all, with a curve of quick figures."""
    _, preset, flags = chosen(call)
    return train_for(call, "full", preset, flags, 60 * call.train, run__evaluate_every=1_000_000)


def train_for(call: Call, name: str, preset: str, flags: str, seconds: float, toy: str = "", **run) -> str:
    """Continue a run until it has trained for that long, by its own lines of stats.jsonl."""
    run = {key.replace("__", "."): value for key, value in run.items() if not call.toy}
    while (done := trained_seconds(call.work / name)) < 0.97 * seconds:
        state = f"{name}: {done / 60:.1f} of {seconds / 60:.1f} minutes trained"
        if not call.enough(2 * STARTUP + GRACE):
            return state
        command = call.training(name, preset, flags, toy, **run)
        status = call.one(name, command, partial(_trained, call, name, seconds))
        if status not in (AGAIN, 124, 143, -15):
            raise call.failed(name, status)
        if trained_seconds(call.work / name) <= done:
            return f"{state}; this call added nothing"
    return ""


def _trained(call: Call, name: str, seconds: float) -> bool:
    return trained_seconds(call.work / name) >= seconds


def finish(call: Call, name: str = "full", preset: str = "", flags: str = "", toy: str = "") -> str:
    """Write the release of a run that has trained for its time: resume it with its images as the goal."""
    folder = call.work / name
    if (folder / "release" / "config.json").is_file() and "n_test" in (stats_of(folder) or [{}])[-1]:
        return ""
    if not call.enough(60):
        return "the release is to be written"
    seen = max(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())
    if not preset:
        _, preset, flags = chosen(call)
    ends = {"run.images": seen, "run.compile": "off", "run.stop_after": 0}
    status = call.one(f"{name}-finish", call.training(name, preset, flags, toy, **ends))
    if status in (124, 143, -15):
        return "the release is to be written"
    if status:
        raise call.failed(f"{name}-finish", status)
    return ""


def probe(call: Call, name: str = "full", seconds: float = 120) -> str:
    """Probe a finished run: linear, k-NN, generation with the in-domain classifier, and pairs, with baselines."""
    if (call.work / name / "probe.json").is_file():
        return ""
    if not call.enough(seconds):
        return f"the probe of {name} is to be made"
    flags = "--generation.inception False --seeds 2 --untrained 2 --data.batch_size 512"
    toy = "--seeds 1 --untrained 1 --generation.images 200 --generation.truncation_images 40" if call.toy else ""
    command = [call.python, "eval_linear/probe.py", call.work / name, *shlex.split(f"{flags} {call.probe_flags} {toy}")]
    status = call.one(f"{name}-probe", command)
    if status in (124, 143, -15):
        return f"the probe of {name} was cut: what it cached is kept, the rest is to be made"
    if status:
        raise call.failed(f"{name}-probe", status)
    return ""


def export(call: Call) -> str:
    """Export averaged E and G in bf16, at most 8 MB, with a card, and measure quick figures of that file."""
    shipped = call.work / "shipped"
    name = "digits" if call.data == "digits" else "uoft-cs/cifar10"
    options = ["--limit_mb", "8", "--data", name, "--name", SMALL]
    left = _once(
        call, "export", [call.python, "-m", "bigbigan.release.export", call.work / "full", shipped, *options], 30
    )
    limit = 200 if call.toy else 10_000
    figures = [call.python, "benchmarks/results_figures.py", "quick", shipped, limit, call.data]
    return left or _once(call, "export-figures", figures, 60)


def ablation(call: Call) -> str:
    """Train the rows of Table 1 at CIFAR size by their own command, one seed after another."""
    group, rows, seeds, images = (
        ("digits", "base no_e", "0", 1920) if call.toy else ("cifar", call.rows, call.seeds, call.images)
    )
    command = [
        call.python,
        "benchmarks/ablation.py",
        "--preset-group",
        group,
        "--rows",
        *rows.split(),
        "--seeds",
        *seeds.split(),
    ]
    command += ["--images", images, "--at-once", call.at_once, "--root", call.work]
    status = call.one("ablation", [*command, "--", "--data.path", call.data])
    if status in (AGAIN, 124, 143, -15):
        return f"rows to go: {last_line(call.log('ablation'))}"
    if status:
        raise call.failed("ablation", status)
    return ""


def sizes(call: Call) -> str:
    """Train each size for a minute to learn its speed, then for its share of the time.

    64 px is trained with E at 64 and at 128 px for equal numbers of images; 128 px for a time.
    """
    minute = 2 if call.toy else 60
    for name in SIZES:
        if left := train_for(call, name, "imagenette64", *_size(call, name, minute)):
            return left
    rates = {name: _images(call, name) / trained_seconds(call.work / name) for name in SIZES}
    path = call.work / "goal.json"
    if not path.is_file():  # images of each of the two, in the time for both together
        images = 60 * call.train * 0.8 / (1 / rates["64"] + 1 / rates["64-e128"])
        write_text_whole(path, json.dumps(images))
    images = json.loads(path.read_text())
    for name in SIZES:
        seconds = images / rates[name] if name != "128" else 60 * call.train * 0.4
        if left := train_for(call, name, "imagenette64", *_size(call, name, max(seconds, minute))):
            return left
    return ""


def _size(call: Call, name: str, seconds: float) -> tuple[str, float, str]:
    split = "" if call.data == "digits" else "--data.subset= --data.test_split=test"
    return f"{SIZES[name]} {split} --run.log_every 10000", seconds, TOY_SIZES[name]


def _images(call: Call, name: str) -> int:
    return max((line["images_seen"] for line in stats_of(call.work / name) if "loss_d" in line), default=0)


def sizes_finish(call: Call) -> str:
    for name in SIZES:
        flags, _, toy = _size(call, name, 0)
        if left := finish(call, name, "imagenette64", flags, toy) or probe(call, name, 90):
            return left
    return ""


def speed(call: Call) -> str:
    """Run all of benchmarks/gpu.sh in one call."""
    left = _once(call, "gpu", ["bash", "benchmarks/gpu.sh", call.work / "gpu"], 60 * call.minutes - 30)
    if not left and not list((call.work / "gpu").glob("*.json")):  # single parts may fail or take too long
        (call.work / "gpu.done").unlink()
        raise Failure(f"benchmarks/gpu.sh: expected figures of at least one part, found none: see {call.work / 'gpu'}")
    return left


LEGS = {
    "A": {"classifier": classifier, "compare": compare, "full": full, "finish": finish, "probe": probe},
    "B": {"classifier": classifier, "full": full, "finish": finish, "probe": probe, "export": export},
    "C": {"classifier": classifier, "ablation": ablation},
    "D": {"train": sizes, "probe": sizes_finish},
    "E": {"gpu": speed},
}


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    leg, pieces = (arguments or [""])[0], arguments[1:]
    if leg not in LEGS or not set(pieces) <= LEGS[leg].keys():
        print(
            "usage: benchmarks/results.sh LEG [PIECE ...]; "
            + "; ".join(f"{k}: {', '.join(v)}" for k, v in LEGS.items())
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    left = ""
    try:
        call = Call(leg)
        try:
            for name, work in LEGS[leg].items():
                if (not pieces or name in pieces) and (left := work(call)):
                    left = f"{name}: {left}"
                    break
        finally:
            collect(call)
    except Failure as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rest = [name for name in LEGS[leg] if pieces and name not in pieces]
    if left:
        print(f"next call: {shlex.join(['benchmarks/results.sh', *arguments])}   ({left})")
    elif rest:
        print(
            f"complete: {', '.join(pieces)}; of leg {leg} there are also {', '.join(rest)}; results so far: {call.out}"
        )
    else:
        print(f"leg {leg} is complete: {call.out}")
    return AGAIN if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
