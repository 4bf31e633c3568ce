"""The printed table: rows by protocol, generation, encoder and generator together."""

ORDER = ("trained", "supervised", "untrained", "none")
NOTES = (
    "± is the standard deviation over n fits: on different held-out parts and label subsets (--seeds); of untrained encoders, over "
    "initialisations"
)


def table(result: dict) -> str:
    """What probe.json holds, for a terminal."""
    seen = "an unknown number of" if result["images_seen"] is None else f"{result['images_seen']:,}"
    lines = [
        f"{result['checkpoint']}: {seen} images seen",
        f"data {result['data']}: n_train {result['n_train']:,}, n_test {result['n_test']:,}, "
        f"{result['classes']} classes",
    ]
    lines += [chosen_by(result["chosen"])] if result.get("chosen") else []
    for protocol, share, data in dict.fromkeys((r["protocol"], r["labels"], r.get("data")) for r in result["rows"]):
        rows = [r for r in result["rows"] if (r["protocol"], r["labels"], r.get("data")) == (protocol, share, data)]
        few = "" if share == 1 else f", {100 * share:g} % of the labels"
        lines += ["", f"{protocol}{few}" + (f", data {data}" if data else "")]
        lines += _block(sorted(rows, key=lambda r: ORDER.index(r["encoder"])))
    if any(len(f) for r in result["rows"] for f in r["figures"]):
        lines += [NOTES]
    lines += _generation(result["generation"]) + _pairs(result["bidirectional"])
    return "\n".join([*lines, "", *_ending(result)])


def chosen_by(choice: dict) -> str:
    """Return which figure on which images chose a checkpoint, from `checkpoint.choice`."""
    text = f"chosen by {choice['figure']} {choice['value']:.4g} on {choice['chosen_on']}"
    if "test images" in choice["chosen_on"]:
        text += "; those figures of the test split that it was chosen by are too good"
    return text


def _block(rows: list[dict]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    head = f"  {'encoder':<12}{'feature':<20}" + "".join(f"{_unit(name):>18}" for name in names) + f"{'n':>4}"
    lines = [head]
    for row in rows:
        cells = "".join(f"{_cell(row['figures'].get(name)):>18}" for name in names)
        n = max(figure["n"] for figure in row["figures"].values())
        limit = "" if row.get("converged", True) else "  (not converged)"
        lines.append(f"  {row['encoder']:<12}{row['feature']:<20}{cells}{n:>4}{limit}")
    return lines


def _unit(name: str) -> str:
    return name if name == "nmi" else f"{name} %"


def _cell(figure: dict | None) -> str:
    if figure is None:
        return "-"
    return f"{100 * figure['mean']:.2f}" + (f" ± {100 * figure['sd']:.2f}" if figure["sd"] is not None else "")


def _generation(generation: dict | None) -> list[str]:
    if generation is None:
        return []
    lines = ["", "generation"]
    for result in generation["results"]:
        lines += [f"  {result['extractor']}: {result['note']}"] if result["note"] else []
        lines += [f"    {name:<58}{value:>12.5g}" for name, value in result["figures"].items()]
    curve = generation["truncation"]
    if curve:
        lines.append(f"  truncation, {curve['extractor']}, {curve['n']:,} samples a threshold")
        for point in curve["points"]:
            threshold = "none" if point["threshold"] is None else f"{point['threshold']:g}"
            lines.append(f"    threshold {threshold:<8} FID {point['fid']:>9.4g}   IS {point['is']:>8.4g}")
        for name, point in curve["summary"].items():
            where = "not reached" if point is None else _where(point)
            lines.append(f"    {name.replace('_', ' '):<18} {where}")
    return lines + [f"  {text}" for text in generation["skipped"]]


def _where(point: dict) -> str:
    threshold = "none" if point["threshold"] is None else f"{point['threshold']:g}"
    return f"FID {point['fid']:.4g}, IS {point['is']:.4g} at threshold {threshold}"


def _pairs(figures: list[dict] | None) -> list[str]:
    if not figures:
        return []
    lines = ["", "encoder and generator together"]
    for f in figures:
        beside = f"{f['baseline_name']} {f['baseline']:.4g}" if f["baseline"] is not None else ""
        lines.append(f"  {f['name']:<86}{f['value']:>9.4g}  ({beside}, n = {f['n']:,})")
    return lines


def _ending(result: dict) -> list[str]:
    network = "encoder" if result["encoder_sha256"] else "generator"
    lines = [f"the {network} did not move; {result['seconds']:.0f} s on {result['device']}"]
    if result.get("folder"):
        lines[0] += f"; written to {result['folder']}/probe.json and report.html"
    return lines
