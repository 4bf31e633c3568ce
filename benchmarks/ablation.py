"""Train rows of BigBiGAN's Table 1 times seeds, as a queue that survives kills, and compare the signs with the paper's.

    python benchmarks/ablation.py --preset-group digits --seeds 0 1 2 --at-once 2
    python benchmarks/ablation.py --preset-group cifar --rows base no_e high_res_e --at-once 4 -- --data.path CIFAR10
    python benchmarks/ablation.py --preset-group digits --table

Each run is an ordinary run folder ROOT/ROW-SEED, trained by bigbigan-train in its own process. At its end it is
measured: linear probe of AvePool features, IS and FID (by a classifier of the data's own domain), and reconstruction
error relative to random pairs. The same command continues the queue: finished runs are left alone, begun ones resume
from their newest checkpoint, failed ones are tried again. Figures that `bigbigan-probe ROOT/ROW-SEED` has written
are preferred if as many runs have them. Logs and states of the runs are in ROOT/queue, the table is in ROOT/table.md
and ROOT/table.json.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bigbigan.config import Config, find_config, lineage, preset_name, presets, read_yaml
from bigbigan.errors import ConfigError
from bigbigan.files import write_text_whole

TRAIN = Path(__file__).resolve().parent.parent / "bigbigan" / "train.py"
GROUPS = {"paper": "table1", "cifar": "table1_cifar", "mnist": "table1_mnist", "digits": "table1_digits"}
AGAIN = 30  # seconds until a run that another process is training is tried again
COLUMNS = {"IS": r"is_(?!real)\w+_n\d+", "FID": r"fid_(?!real)\w+_train_n\d+", "probe": r"top1_\w*linear\w*",
           "reconstruction": r"reconstruction_error_relative"}  # fmt: skip

# BigBiGAN, Table 1: row → (its name there, IS, FID, probe %), each (mean, sd of 3 seeds or None for one run).
PAPER = {
    "base":               ("Base", (22.66, 0.18), (31.19, 0.37), (48.10, 0.13)),
    "deterministic_e":    ("Deterministic E", (22.79, 0.27), (31.31, 0.30), (46.97, 0.35)),
    "uniform_prior":      ("Uniform P_z", (22.83, 0.24), (31.52, 0.28), (45.11, 0.93)),
    "x_unary_only":       ("x Unary Only", (23.19, 0.28), (31.99, 0.30), (47.74, 0.20)),
    "z_unary_only":       ("z Unary Only", (19.52, 0.39), (39.48, 1.00), (47.78, 0.28)),
    "no_unaries":         ("No Unaries (BiGAN)", (19.70, 0.30), (42.92, 0.92), (46.71, 0.88)),
    "small_g_third":      ("Small G (32)", (3.28, 0.18), (247.30, 10.31), (43.59, 0.34)),
    "small_g_two_thirds": ("Small G (64)", (19.96, 0.15), (38.93, 0.39), (47.54, 0.33)),
    "no_e":               ("No E (GAN)", (23.56, 0.37), (30.91, 0.23), None),
    "high_res_e":         ("High Res E (256)", (23.45, 0.14), (27.86, 0.09), (50.80, 0.30)),
    "low_res_g":          ("Low Res G (64)", (19.40, 0.19), (15.82, 0.06), (47.51, 0.09)),
    "high_res_g":         ("High Res G (256)", (24.70, None), (38.58, None), (51.49, None)),
    "resnet101":          ("ResNet-101", (23.29, None), (28.01, None), (51.21, None)),
    "resnet_x2":          ("ResNet (×2)", (23.68, None), (27.81, None), (52.66, None)),
    "revnet":             ("RevNet", (23.33, 0.09), (27.78, 0.06), (49.42, 0.18)),
    "revnet_x2":          ("RevNet (×2)", (23.21, None), (27.96, None), (54.40, None)),
    "revnet_x4":          ("RevNet (×4)", (23.23, None), (28.15, None), (57.15, None)),
    "resnet_e_lr":        ("ResNet (↑ E LR)", (23.27, 0.22), (28.51, 0.44), (53.70, 0.15)),
    "revnet_x4_e_lr":     ("RevNet (×4) (↑ E LR)", (23.08, None), (28.54, None), (60.15, None)),
}  # fmt: skip

NOTE = """↑ ↓: the figure is higher or lower than in the row named, which differs by one thing; ≈: by no more than both
standard deviations together. The paper's change is that against the row which differs by the same thing there."""


@dataclass
class Run:
    """Hold a row with a seed: `command` trains it, `record` is its state (finished, failed or stopped) on the disk."""

    row: str
    seed: int
    root: Path
    command: list[str]
    record: dict = field(default_factory=dict)
    after: float = 0.0  # when it may be started

    def __post_init__(self):
        try:
            self.record = json.loads(self.record_file.read_text())
        except (OSError, ValueError):  # none, or cut short
            self.record = {}

    @property
    def name(self) -> str:
        return f"{self.row}-{self.seed}"

    @property
    def record_file(self) -> Path:
        return self.root / "queue" / f"{self.name}.json"

    @property
    def finished(self) -> bool:
        """Return whether the run has finished with exactly these flags; a longer run, for one, is another run."""
        same = self.record.get("flags") == flags_of(self.command)
        return self.record.get("state") == "finished" and same and (self.root / self.name).is_dir()

    def note(self, state: str, **facts) -> None:
        self.record = {"state": state, "flags": flags_of(self.command), **facts}
        write_text_whole(self.record_file, json.dumps(self.record, indent=1) + "\n")


def flags_of(command: list[str]) -> list[str]:
    """Return the flags that decide a run's figures: all but the interpreter, the script and the number of threads."""
    return [flag for flag in command[2:] if not flag.startswith("--run.threads=")]


@cache
def preset(name: str) -> Config:
    return read_yaml(find_config(name), Config())


def plan(
    group: str, rows: list[str], seeds: list[int], root: Path, images: int, evaluated: int, threads: int, overrides
) -> list[Run]:
    """Return all runs, one seed after another, so that the table has every row early.

    images: of the base's run, the others in proportion; 0 for the presets'.  evaluated: images of an evaluation.
    """
    base = preset(f"{group}/base").run.images
    runs = []
    for seed in seeds:
        for row in rows:
            own = preset(f"{group}/{row}").run.images
            count = round(own * images / base) if images else own
            runs.append(Run(row, seed, root, [
                sys.executable, str(TRAIN), f"--config={group}/{row}", f"--run.root={root}", f"--run.name={row}-{seed}",
                f"--run.seed={seed}", f"--run.images={count}", f"--run.evaluate_every={count}",
                f"--run.evaluate_images={evaluated}", "--run.probe=False", f"--run.threads={threads}", *overrides,
            ]))  # fmt: skip
    return runs


def work(runs: list[Run], at_once: int) -> None:
    """Train the runs that are not finished, `at_once` at a time.

    A signal makes the running ones write checkpoints and ends the queue with status 75.
    """
    asked: list[int] = []
    before = {
        s: signal.signal(s, lambda number, _: asked.append(number))
        for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    waiting, running, took = [run for run in runs if not run.finished], {}, []
    say(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished; {at_once} at once")
    try:
        while waiting or running:
            for process, (run, log, started) in list(running.items()):
                if process.poll() is not None:
                    del running[process]
                    log.close()
                    seconds = time.monotonic() - started
                    if end(run, process.returncode, seconds):
                        waiting.append(run)
                    took += [seconds] if run.record.get("state") == "finished" else []
                    left = len(waiting) + len(running)
                    about = (
                        f", about {statistics.mean(took) * left / at_once / 60:.0f} min more" if took and left else ""
                    )
                    say(f"  {left} left{about}")
            if asked and running:
                say(f"asked to stop: {len(running)} runs write their checkpoints; the same command goes on")
                for process in running:
                    process.send_signal(signal.SIGTERM)
                for process, (run, log, started) in running.items():
                    process.wait()
                    log.close()
                    end(run, 75 if process.returncode < 0 else process.returncode, time.monotonic() - started)
            if asked:
                raise SystemExit(75)
            ready = [run for run in waiting if run.after <= time.monotonic()]
            for run in ready[: at_once - len(running)]:
                waiting.remove(run)
                log = open(run.root / "queue" / f"{run.name}.log", "w")  # noqa: SIM115
                # in a session of its own, so that Ctrl-C reaches a run only once, through the queue
                process = subprocess.Popen(
                    run.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
                )
                running[process] = run, log, time.monotonic()
                say(f"{run.name}: begun")
            time.sleep(0.2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end(run: Run, status: int, seconds: float) -> bool:
    """Record how a run ended; return whether to try again later because another process has its folder."""
    lines = (run.root / "queue" / f"{run.name}.log").read_text(errors="replace").strip().splitlines()
    error = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "no output")
    if status == 0:
        run.note("finished", seconds=round(seconds, 1))
        say(f"{run.name}: finished in {seconds:.0f} s")
    elif status == 2 and "is training in it" in error:
        run.after = time.monotonic() + AGAIN
        say(f"{run.name}: another process is training it; it is asked again in {AGAIN} s")
        return True
    elif status == 75:
        run.note("stopped", seconds=round(seconds, 1))
        say(f"{run.name}: stopped")
    else:
        run.note("failed", status=status, error=error)
        say(f"{run.name}: failed with status {status}: {error}")
    return False


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def measured(folder: Path) -> dict[str, float]:
    """Return {figure's name: value} of a finished run, from its last evaluation and from probe.json."""
    found: dict[str, float] = {}
    if not (folder / "release" / "config.json").is_file():
        return found
    for line in (folder / "stats.jsonl").read_text().splitlines():
        values = json.loads(line)
        wanted = {k: v for k, v in values.items() if any(re.fullmatch(pattern, k) for pattern in COLUMNS.values())}
        if any(name.startswith("fid_") for name in wanted):
            found = {}  # of an earlier evaluation
        found |= wanted
    try:
        probe = json.loads((folder / "probe.json").read_text())
    except (OSError, ValueError):
        return found
    for row in probe["rows"]:
        if (row["encoder"], row["feature"], row["labels"]) == ("trained", "AvePool", 1) and row["protocol"].startswith(
            "linear"
        ):
            found["top1_" + re.sub(r"\W+", "_", row["protocol"])] = row["figures"]["top1"]["mean"]
    for result in (probe["generation"] or {"results": []})["results"]:
        found |= {k: v for k, v in result["figures"].items() if re.fullmatch(rf"{COLUMNS['IS']}|{COLUMNS['FID']}", k)}
    return found


def chosen(runs: dict[tuple[str, int], dict]) -> dict[str, str]:
    """Return, for each column, the name of the figure that most runs have.

    Among equally frequent ones Inception's comes first, then the probe's, then the one with the most images.
    """
    names = {}
    for column, pattern in COLUMNS.items():
        counts = Counter(name for figures in runs.values() for name in figures if re.fullmatch(pattern, name))
        size = lambda name: int(re.findall(r"\d+", name)[-1]) if re.search(r"\d", name) else 0  # noqa: E731
        if counts:
            names[column] = max(
                counts, key=lambda name: (counts[name], "inception" in name, name != "top1_linear", size(name))
            )
    return names


@cache
def reference(group: str, row: str) -> str | None:
    """Return the row that this one is based on and differs from by one thing; None for the base."""
    below = lineage(find_config(f"{group}/{row}"))[1:]
    name = preset_name(below[0][0]) if below else ""
    return name.split("/")[1] if name.startswith(f"{group}/") else None


def change(new: tuple, old: tuple) -> tuple[float, str]:
    """Return the difference of two means, and ↑, ↓, or ≈ if it is at most both standard deviations together.

    new, old: (mean, sd); where a row has no sd, the other's is taken.
    """
    spread = (new[1] if new[1] is not None else old[1] or 0) + (old[1] if old[1] is not None else new[1] or 0)
    difference = new[0] - old[0]
    return difference, "≈" if abs(difference) <= spread else "↑" if difference > 0 else "↓"


def verdict(ours: str, papers: str) -> str:
    if ours == papers:
        return "agrees"
    return "within our spread" if ours == "≈" else "within the paper's spread" if papers == "≈" else "DISAGREES"


def tabulate(group: str, rows: list[str], seeds: list[int], root: Path) -> dict:
    """Return all figures there are: {"names", "rows": {row: ...}, "missing": {run: state}, "signs": counts, ...}."""
    runs = {(row, seed): measured(root / f"{row}-{seed}") for row in rows for seed in seeds}
    names, result = chosen(runs), {}
    for row in rows:
        cells = {}
        for column, name in names.items():
            values = [100 * v if column == "probe" else v for s in seeds if (v := runs[row, s].get(name)) is not None]
            if values:
                sd = statistics.stdev(values) if len(values) > 1 else None
                cells[column] = {"mean": statistics.mean(values), "sd": sd, "n": len(values), "values": values}
        result[row] = {"paper_row": PAPER[row][0], "figures": cells, "against": reference(group, row), "changes": {}}
    pixels = {row: preset(f"{group}/{row}").model.image_size for row in rows}
    for row, entry in result.items():
        other = entry["against"]
        for column, cell in entry["figures"].items() if other in result else ():
            beside = result[other]["figures"].get(column)
            if beside is not None and (pixels[row] == pixels[other] or column == "probe"):
                difference, sign = change((cell["mean"], cell["sd"]), (beside["mean"], beside["sd"]))
                entry["changes"][column] = {"difference": difference, "sign": sign} | papers(row, column)
                seen = entry["changes"][column]
                if "paper_sign" in seen:
                    several = min(cell["n"], beside["n"]) > 1
                    seen["verdict"] = verdict(sign, seen["paper_sign"]) if several else "one run"
    missing = {f"{row}-{seed}": state_of(root, row, seed) for (row, seed), figures in runs.items() if not figures}
    signs = Counter(c["verdict"] for e in result.values() for c in e["changes"].values() if "verdict" in c)
    return {"group": group, "seeds": seeds, "names": names, "rows": result, "missing": missing, "signs": signs}


def papers(row: str, column: str) -> dict:
    """Return the paper's change of the row, against the row that it differs from by the same thing."""
    at, other = {"IS": 1, "FID": 2, "probe": 3}.get(column), reference("table1", row)
    if at is None or other is None or PAPER[row][at] is None:
        return {}
    difference, sign = change(PAPER[row][at], PAPER[other][at])
    return {"paper_difference": difference, "paper_sign": sign, "paper_against": other}


def state_of(root: Path, row: str, seed: int) -> str:
    record = Run(row, seed, root, []).record
    return {"failed": f"failed: {record.get('error')}", "stopped": "stopped"}.get(record.get("state"), "not there yet")


def markdown(result: dict) -> str:
    """Return two tables in Markdown: the figures, and our signs beside the paper's."""
    figures = [["row", "n", *(f"{column}" + (", %" if column == "probe" else "") for column in result["names"])]]
    signs = [
        ["row", "against", *(f"{c}: ours, paper's" for c in result["names"] if c != "reconstruction"), "reconstruction"]
    ]
    for row, entry in result["rows"].items():
        if not entry["figures"]:
            continue
        n = sorted({cell["n"] for cell in entry["figures"].values()})
        cells = [entry["figures"].get(column) for column in result["names"]]
        figures.append([f"{entry['paper_row']} (`{row}`)", " – ".join(map(str, n)), *map(_cell, cells)])
        if entry["changes"]:
            cells = [_signs(entry["changes"].get(c)) for c in result["names"] if c != "reconstruction"]
            signs.append([entry["paper_row"], entry["against"], *cells, _signs(entry["changes"].get("reconstruction"))])
    counts = ", ".join(f"{count} {name}" for name, count in result["signs"].items())
    lines = [_table(figures), "", *(f"- {column}: `{name}`" for column, name in result["names"].items()), ""]
    if len(signs) > 1:
        lines += [_table(signs), "", NOTE, f"Signs: {counts or 'none'}.", ""]
    return "\n".join([*lines, *(f"- missing: {name}, {state}" for name, state in result["missing"].items())]) + "\n"


def _cell(cell: dict | None) -> str:
    return "–" if cell is None else f"{cell['mean']:.4g}" + (f" ± {cell['sd']:.2g}" if cell["sd"] is not None else "")


def _signs(seen: dict | None) -> str:
    if seen is None:
        return "–"
    ours = f"{seen['sign']} {seen['difference']:+.3g}"
    return (
        f"{ours}, {seen['paper_sign']} {seen['paper_difference']:+.3g}: {seen['verdict']}"
        if "verdict" in seen
        else ours
    )


def _table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--preset-group",
        choices=GROUPS,
        default="digits",
        help="the size: configs/table1, table1_cifar, table1_mnist or table1_digits (default)",
    )
    add(
        "--rows",
        nargs="+",
        metavar="ROW",
        help="rows by their files' names, such as base no_e (default: all of the group)",
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    add(
        "--images",
        type=int,
        default=0,
        help="length of the base's run, the others in proportion (default: the presets')",
    )
    add(
        "--evaluate-images",
        type=int,
        default=5_000,
        metavar="N",
        help="samples for IS and FID, and the most training and test images for the probe (default: 5000)",
    )
    add("--root", type=Path, help="where the runs live (default: runs/GROUP)")
    add("--at-once", type=int, default=1, metavar="N", help="runs at a time, which share the cores (default: 1)")
    add("--table", action="store_true", help="train nothing: print the table of what is there")
    parser.epilog = (
        "After two dashes: settings of every run, as train.py takes them, such as "
        "-- --data.path PATH --run.precision bf16"
    )
    argv = sys.argv[1:] if argv is None else argv
    at = argv.index("--") if "--" in argv else len(argv)
    o, overrides = parser.parse_args(argv[:at]), argv[at + 1 :]
    group = GROUPS[o.preset_group]
    there = [row for row in PAPER if f"{group}/{row}" in presets()]
    rows, root = o.rows or there, o.root or Path("runs") / group
    if wrong := [row for row in rows if row not in there]:
        parser.error(f"--rows {wrong[0]}: expected some of {', '.join(there)}")
    if min(o.at_once, o.evaluate_images) < 1 or o.images < 0 or min(o.seeds) < 0:
        parser.error("--at-once, --evaluate-images: expected at least 1; --images, --seeds: at least 0")
    (root / "queue").mkdir(parents=True, exist_ok=True)
    if not o.table:
        threads = max(1, (os.cpu_count() or 1) // o.at_once)
        work(plan(group, rows, o.seeds, root, o.images, o.evaluate_images, threads, overrides), o.at_once)
    result = tabulate(group, rows, o.seeds, root)
    text = markdown(result)
    (root / "table.json").write_text(json.dumps(result, indent=1) + "\n")
    (root / "table.md").write_text(text)
    print(f"\n{text}\nwritten to {root / 'table.md'} and table.json")
    if any("failed" in state for state in result["missing"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None
