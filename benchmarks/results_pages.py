"""Write what a leg leaves: a digest of its figures (JSON), a page made from it (Markdown), grids, a tar of the rest."""

import json
import os
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

import torch

from bigbigan.files import write_text_whole
from bigbigan.release.card import worth
from eval_linear.result import ProbeResult

PART = 15_000_000  # bytes of a file that travels
LINES = 120  # of stats.jsonl in a digest
MAIN = {"A": ("full",), "B": ("full",), "C": (), "D": ("64", "64-e128", "128"), "E": ()}
TITLES = {
    "A": ("cifar10", "CIFAR-10 on one GPU"),
    "B": ("shipped", "The model that ships"),
    "C": ("table1", "The signs of Table 1 at CIFAR size"),
    "D": ("sizes", "64 and 128 px on Imagenette"),
    "E": ("speed", "Speed on a GPU"),
}
AIMS = (
    (62.6, "BiGAN's encoders, as Deep InfoMax's paper reports them, with an MLP probe"), (70.0, "our second aim"),
    (75.2, "Deep InfoMax, as its paper reports it"),
)  # fmt: skip


def stats_of(folder: Path) -> list[dict]:
    """Return the lines of a run's stats.jsonl, without a last one that a kill cut short."""
    path, lines = folder / "stats.jsonl", []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def trained_seconds(folder: Path) -> float:
    """Return the seconds that a run has trained, by its log: pauses, start-ups and lost work do not count.

    The time of evaluations and grids between two lines counts.
    """
    logged = [line for line in stats_of(folder) if "images_per_second" in line]
    before = [0] + [line["images_seen"] for line in logged]
    return sum(
        (line["images_seen"] - b) / max(line["images_per_second"], 1e-9)
        for b, line in zip(before, logged, strict=False)
    )


def last_line(log: Path) -> str:
    """Return the last line of a program's log."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "it said nothing"


def hardware() -> str:
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        what = f"one {properties.name} ({properties.total_memory / 2**30:.0f} GiB), {os.cpu_count()} CPU cores"
    else:
        what = f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU"
    return f"{what}, torch {torch.__version__}"


def digest(call) -> dict:
    """Return all figures of a leg, small enough for one file."""
    found = {"leg": call.leg, "toy": call.toy, "hardware": hardware(), "data": Path(call.data).name}
    for name in ("ledger", "chosen", "goal"):
        path = call.work / f"{name}.json"
        found |= {name: json.loads(path.read_text())} if path.is_file() else {}
    peaks = call.work / "peak_mib.json"
    found["peak_mib"] = max(call.peak_mib, json.loads(peaks.read_text()) if peaks.is_file() else 0)
    write_text_whole(peaks, json.dumps(found["peak_mib"]))
    for name in MAIN[call.leg]:
        if lines := stats_of(call.work / name):
            found.setdefault("runs", {})[name] = _run(call.work / name, lines)
    table = call.work / "table.md"
    found |= {"table": table.read_text()} if table.is_file() else {}
    log = call.work / "gpu" / "gpu.log"
    found |= {"log": log.read_text(errors="replace")[-8000:]} if log.is_file() else {}
    for path in (*call.work.glob("gpu/*.json"), *call.work.glob("*/figures.json"), *call.work.glob("*-figures.json")):
        if not path.parent.name.startswith("try-"):
            found.setdefault("files", {})[str(path.relative_to(call.work))] = json.loads(path.read_text())
    return found


def _run(folder: Path, lines: list[dict]) -> dict:
    logged = [line for line in lines if "loss_d" in line]
    rates = sorted(line["images_per_second"] for line in logged) or [0.0]
    run = {
        "images_seen": max(line["images_seen"] for line in lines),
        "minutes": round(trained_seconds(folder) / 60, 2),
        "images_per_second": {
            "median": rates[len(rates) // 2],
            "lowest": rates[0],
            "highest": rates[-1],
            "n": len(logged),
        },
        "curve": [line for line in lines if "top1_linear" in line],
        "alarms": [line for line in lines if {"alarm", "recovery"} & line.keys()],
        "stats": logged[:: -(-len(logged) // LINES) or 1],
    }
    if (folder / "probe.json").is_file():
        probe = json.loads((folder / "probe.json").read_text())
        run["probe"] = {key: value for key, value in probe.items() if key not in ("confusion", "sheets", "class_names")}
        for row in run["probe"]["rows"]:
            row.pop("per_class", None)
    return run


def collect(call) -> None:
    """OUT: LEG.json, LEG.md, grids, and the rest (release, page, logs, stats) in parts of a tar: at most eight
    files."""
    for old in call.out.glob(f"{TITLES[call.leg][0]}*"):
        old.unlink()
    name, found = TITLES[call.leg][0], digest(call)
    (call.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    pictures = {}
    for run in MAIN[call.leg]:
        for kind in ("samples", "reconstructions"):
            grids = sorted((call.work / run / kind).glob("*.png"))
            if grids and (kind == "reconstructions" or len(MAIN[call.leg]) == 1):
                pictures[run, kind] = f"{name}-{run}-{kind}.png"
                shutil.copy(grids[-1], call.out / pictures[run, kind])
    (call.out / f"{name}.md").write_text(page(found, pictures))
    _pack(call, call.out / f"{name}.tar", [call.work / run for run in MAIN[call.leg]])


def _pack(call, target: Path, runs: list[Path]) -> None:
    """Write a tar of releases, pages, stats and logs; a release that is too large is exported in bf16."""
    release = None
    if runs and (runs[0] / "release" / "config.json").is_file() and not (call.work / "shipped").is_dir():
        release = call.work / "light"
        command = [call.python, "-m", "bigbigan.release.export", runs[0], release]
        if not (release / "config.json").is_file():
            subprocess.run(
                [str(part) for part in command], cwd=Path(__file__).resolve().parent.parent, stdout=subprocess.DEVNULL
            )
    with tarfile.open(target, "w") as archive:
        for run in runs:
            for kept in (
                "stats.jsonl",
                "config.yaml",
                "probe.json",
                "report.html",
                "evaluation",
                "samples",
                "reconstructions",
            ):
                if (run / kept).exists():
                    archive.add(run / kept, f"{run.name}/{kept}")
        for path in sorted(call.work.glob("*/stats.jsonl")) + sorted(call.work.glob("*/release/config.json")):
            if path.relative_to(call.work).parts[0] not in MAIN[call.leg]:  # of short runs, figures alone
                archive.add(path, path.relative_to(call.work))
        folders = (release, *(call.work / name for name in ("shipped", "logs", "gpu", "queue")))
        for path in (
            *(f for f in folders if f is not None and f.is_dir()),
            *call.work.glob("*.json"),
            *call.work.glob("table.md"),
        ):
            archive.add(path, path.name)
    whole = target.read_bytes()
    if len(whole) > PART:
        for i in range(0, len(whole), PART):
            Path(f"{target}.{i // PART}").write_bytes(whole[i : i + PART])
        target.unlink()


def page(found: dict, pictures: dict | None = None) -> str:
    """Return the leg's page from its digest: what was run on what, for how long, and the figures with n and spread."""
    name, title = TITLES[found["leg"]]
    lines = [f"# {title}", ""]
    if found["toy"]:
        lines += ["**A rehearsal at toy sizes: it shows the path, and its figures mean nothing.**", ""]
    memory = f"; at most {found['peak_mib'] / 1024:.1f} GiB of the GPU's memory in use" if found["peak_mib"] else ""
    lines += [f"`benchmarks/results.sh {found['leg']}` on {found['hardware']}; data {found['data']}{memory}."]
    lines += _ledger(found.get("ledger", []))
    if "chosen" in found:
        candidate, preset, flags = found["chosen"]
        lines += ["", f"The run: candidate “{candidate}”, preset `{preset}`, changes `{flags or 'none'}`."]
    lines += ["", found["table"].rstrip()] if "table" in found else []
    lines += _runs(found.get("runs", {}))
    for run, facts in found.get("runs", {}).items():
        lines += ["", f"## {run}"] if len(found["runs"]) > 1 else []
        lines += _curve(facts["curve"]) + _aims(facts.get("probe"), found["data"])
        text = worth(ProbeResult.from_json(facts["probe"]) if "probe" in facts else None)
        lines += (
            [text.rstrip(), "", "One run; ± is over fits, of untrained encoders over initialisations."] if text else []
        )
        for kind in ("samples", "reconstructions"):
            if pictures and (run, kind) in pictures:
                about = "samples of fixed latents" if kind == "samples" else "held-out images and their reconstructions"
                lines += ["", f"![{about}](images/{pictures[run, kind]})"]
    for file, figures in found.get("files", {}).items():
        lines += ["", f"`{file}`:", "", "```json", json.dumps(figures, indent=1)[:6000], "```"]
    lines += ["", "```", found["log"].rstrip(), "```"] if "log" in found else []
    if not any(found.get(key) for key in ("runs", "files", "ledger", "table")):
        lines += ["", "Nothing has been measured yet."]
    return "\n".join([*lines, ""])


def _ledger(ledger: list[dict]) -> list[str]:
    if not ledger:
        return []
    at_once, most = max(e["at_once"] for e in ledger), max(e.get("n", 0) for e in ledger)
    columns = ("candidate", "changes", "images", "images/s", "linear, top-1 %", "k-NN %", "FID", "reconstruction")
    lines = ["", "## What was tried", ""]
    lines += [
        f"Each candidate trained {ledger[0]['minutes']:g} minutes, {at_once} at once on the same device, one run each;",
        "rows that differ in their seed alone show how far chance reaches.",
        "Quick figures of AvePool features and of samples: at most",
        f"{most:,} training images, test images and samples; FID in-domain; reconstruction relative to random pairs.",
        "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|",
    ]  # fmt: skip
    for e in sorted(ledger, key=lambda e: -e.get("top1_linear", -1)):
        change = f"`{e['flags'] or e['preset']}`"
        if "failed" in e:
            lines.append(f"| {e['name']} | {change} | failed: {e['failed'][:120]} | | | | | |")
            continue
        lines.append(
            f"| {e['name']} | {change} | {e['images_seen']:,} | {e.get('images_per_second', 0):,.0f} | {_quick(e)} |"
        )
    return lines


def _runs(runs: dict) -> list[str]:
    if not runs:
        return []
    lines = [
        "",
        "| run | images | minutes of training | images/s, median (lowest to highest) | probe, s |",
        "|---|---|---|---|---|",
    ]
    for name, r in runs.items():
        rate, seconds = r["images_per_second"], r.get("probe", {}).get("seconds", "not made")
        span = f"{rate['median']:,.0f} ({rate['lowest']:,.0f} to {rate['highest']:,.0f}, n = {rate['n']})"
        lines.append(f"| {name} | {r['images_seen']:,} | {r['minutes']:g} | {span} | {seconds} |")
    alarms = [f"{name}: {line}" for name, r in runs.items() for line in r["alarms"]]
    return lines + (["", "Alarms and recoveries: " + "; ".join(alarms) + "."] if alarms else [])


def _curve(curve: list[dict]) -> list[str]:
    if not curve:
        return []
    shown = curve[:: -(-len(curve) // 12)] + ([curve[-1]] if (len(curve) - 1) % -(-len(curve) // 12) else [])
    lines = ["", "On the way, quick figures (5,000 images):", ""]
    lines += [
        "| images | linear, top-1 % | k-NN % | FID (in-domain) | reconstruction, of random pairs |",
        "|---|---|---|---|---|",
    ]
    for line in shown:
        lines.append(f"| {line['images_seen']:,} | {_quick(line)} |")
    return lines


def _quick(figures: dict) -> str:
    """Return the table cells of quick figures: linear, k-NN, FID, reconstruction."""
    fid = next((value for name, value in figures.items() if name.startswith("fid_")), float("nan"))
    shares = f"{100 * figures['top1_linear']:.1f} | {100 * figures['top1_knn']:.1f}"
    return f"{shares} | {fid:.3g} | {figures['reconstruction_error_relative']:.3f}"


def _aims(probe: dict | None, data: str) -> list[str]:
    """Compare the linear probe with what others reached on CIFAR-10, and with the untrained encoder."""
    rows = [r for r in (probe or {"rows": []})["rows"] if r["protocol"].startswith("linear") and r["labels"] == 1]
    best = {
        kind: max((100 * r["figures"]["top1"]["mean"] for r in rows if r["encoder"] == kind), default=None)
        for kind in ("trained", "untrained")
    }
    if data != "cifar10" or None in best.values():
        return []
    ours, lift = best["trained"], best["trained"] - best["untrained"]
    compared = f"{lift:+.1f} points from the untrained encoder (aim: +20)"
    lines = ["", f"Linear probe, the better of the features: {ours:.1f} %, {compared}."]
    return [*lines, *(f"{'Above' if ours >= aim else 'Below'} {aim} % ({what})." for aim, what in AIMS)]
