"""The lines of stats.jsonl."""

KINDS = ("training", "spectra", "alarm", "recovery", "evaluation", "closing")


def kind_of(record: dict) -> str:
    """Return the kind of a line of stats.jsonl, one of `KINDS`; of an old line, which does not say, by the keys it has."""
    if record.get("kind") in KINDS:
        return record["kind"]
    for key, kind in (("spectra", "spectra"), ("alarm", "alarm"), ("recovery", "recovery"), ("loss_d", "training")):
        if key in record:
            return kind
    return "closing" if "n_test" in record else "evaluation"
