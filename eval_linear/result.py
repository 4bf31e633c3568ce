"""Define the schema of probe.json: dataclasses that the probe fills in, and that table, page and card render.

The keys of the file are the names of the fields, unless a field names another. This file imports nothing heavy, so
that every floor of the library may read a result.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bigbigan.errors import ProbeError
from bigbigan.files import printable

UNIONS = (Union, UnionType)
LARGEST = 2**1000  # integers beyond this are no counts, and cannot be divided


@dataclass(frozen=True)
class FigureInfo:
    """Describe a figure: what a table calls it, its unit, and which direction is better.

    name: how the figure's key begins; the whole key may go on with `_` or `,` and what it was measured on, such as
    `fid_inception2015_train_n10000`.  unit: "share" is a number in [0, 1] that is shown in per cent.  better: "" where
    neither direction is.
    """

    name: str
    title: str
    unit: Literal["", "share"] = ""
    better: Literal["higher", "lower", ""] = "higher"

    def covers(self, key: str) -> bool:
        """Return whether `key` is a figure of this name."""
        return key == self.name or key.startswith((f"{self.name}_", f"{self.name},"))


# The figures of a row. Each metric of `bigbigan.metrics` describes its own.
FIGURES = (
    FigureInfo("top1", "top-1", "share"),
    FigureInfo("top5", "top-5", "share"),
    FigureInfo("accuracy", "accuracy", "share"),
    FigureInfo("nmi", "NMI"),
)


def optional() -> Any:
    """Declare a field that is None where it does not apply; its key is then left out of the file."""
    return field(default=None, metadata={"optional": True})


def named(key: str) -> Any:
    """Declare a field whose key in the file is not its name."""
    return field(default=None, metadata={"key": key})


@dataclass
class Figure:
    """Hold one figure over n fits. sd: the standard deviation, None of a single fit; n: None where it is unknown."""

    mean: float
    sd: float | None = None
    n: int | None = None

    def percent(self, digits: int) -> str:
        """Return 100 × mean ± 100 × sd with so many digits after the point."""
        spread = "" if self.sd is None else f" ± {100 * self.sd:.{digits}f}"
        return f"{100 * self.mean:.{digits}f}{spread}"


@dataclass
class Row:
    """Hold the figures of one representation under one protocol.

    encoder: "trained", "untrained", "supervised" or "none".  labels: the share of the training labels that was asked
    for.  labelled_images: how many training images a linear fit had labels of; more than the share of small classes,
    since each keeps at least one.
    strengths: the strength that each linear fit chose.  converged: whether every fit reached its tolerance.
    per_class: accuracy on each class, None for a class without test images.  data: the second data set, see --transfer.
    """

    encoder: str = ""
    feature: str = ""
    protocol: str = ""
    labels: float = 1.0
    figures: dict[str, Figure] = field(default_factory=dict)
    labelled_images: int | None = optional()
    strengths: list[float | None] | None = optional()
    converged: bool | None = optional()
    per_class: list[float | None] | None = optional()
    data: str | None = optional()
    note: str | None = optional()

    def mean(self, name: str = "top1") -> float:
        """Return the mean of the figure `name`; −∞ where the row has none, or none that is finite."""
        figure = self.figures.get(name)
        return figure.mean if figure is not None and math.isfinite(figure.mean) else -math.inf


@dataclass
class Confusion:
    """Hold counts of test images, (K, K): a matrix row for each true class, a column for each predicted class.

    row: which row of the result they are of.
    """

    row: str = ""
    matrix: list[list[int]] = field(default_factory=list)


@dataclass
class ExtractorFigures:
    """Hold the figures of samples in the features of one extractor, by their full names."""

    extractor: str = ""
    note: str = ""
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class CurvePoint:
    """Hold FID and Inception score at one truncation threshold; None is no truncation."""

    threshold: float | None = None
    fid: float | None = None
    inception_score: float | None = named("is")


@dataclass
class CurveSummary:
    """Hold the three points that a truncation curve is reported by (Brock et al. 2019, table 2); None: not reached.

    min_fid: of the least FID.  valid_is: where the Inception score is that of real images.  max_is: of the greatest.
    """

    min_fid: CurvePoint | None = None
    valid_is: CurvePoint | None = None
    max_is: CurvePoint | None = None


@dataclass
class TruncationCurve:
    """Hold FID and Inception score over truncation, n samples a threshold (Brock et al. 2019, appendix D).

    real_is: the Inception score of n real images, None where there are fewer.
    """

    extractor: str = ""
    split: str = ""
    n: int | None = None
    points: list[CurvePoint] = field(default_factory=list)
    real_is: float | None = None
    summary: CurveSummary = field(default_factory=CurveSummary)

    def threshold(self, point: CurvePoint) -> str:
        """Return the threshold of a point as text; "above 2" between the mildest threshold, 2, and no truncation."""
        known = [p.threshold for p in self.points if p.threshold is not None and math.isfinite(p.threshold)]
        if point.threshold is not None and math.isfinite(point.threshold):
            return f"{point.threshold:.4g}"
        return "none" if point in self.points or not known else f"above {max(known):.4g}"


@dataclass
class GenerationResult:
    """Hold what samples of G are worth. skipped: a sentence for each extractor that could not be had."""

    results: list[ExtractorFigures] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    truncation: TruncationCurve | None = None


@dataclass
class PairFigure:
    """Hold one figure of encoder and generator together, beside the baseline that it must beat."""

    name: str = ""
    value: float | None = None
    baseline: float | None = None
    baseline_name: str | None = None
    n: int | None = None
    unit: str = ""


@dataclass
class Sheet:
    """Hold the title, the path inside the run folder and the caption of one picture."""

    title: str = ""
    path: str = ""
    caption: str = ""


@dataclass
class Choice:
    """Hold what chose a kept checkpoint among those of its run: a figure, its value, and on which images, in words."""

    figure: str = ""
    value: float = math.nan
    chosen_on: str = ""

    def words(self) -> str:
        """Return the choice for a table; test images that chose are said to be no fair judges."""
        text = f"chosen by {self.figure} {self.value:.4g} on {self.chosen_on}"
        if "test images" in self.chosen_on:
            text += "; those figures of the test split that it was chosen by are too good"
        return text


@dataclass
class ProbeResult:
    """Hold all that one call of `bigbigan-probe` measured; a part that was not measured is None or empty.

    checkpoint: what was probed.  encoder_sha256: of E's weights and statistics, None of a GAN.  data: the data set.
    seeds: fits a row.  seconds, device: what the probe took, and on what.  bidirectional: E and G together.
    chosen: what chose the checkpoint, if it is the best one of a run.  classes: None without labels.
    not_measured: a sentence for each reason why parts were left out, such as that there are no labels.
    """

    checkpoint: str = ""
    images_seen: int | None = None
    encoder_sha256: str | None = None
    data: str = ""
    n_train: int | None = None
    n_test: int | None = None
    classes: int | None = None
    class_names: list[str] = field(default_factory=list)
    seeds: int | None = None
    seconds: float | None = None
    device: str = ""
    rows: list[Row] = field(default_factory=list)
    confusion: Confusion | None = None
    generation: GenerationResult | None = None
    bidirectional: list[PairFigure] | None = None
    sheets: list[Sheet] = field(default_factory=list)
    chosen: Choice | None = optional()
    not_measured: list[str] | None = optional()

    def measured(self) -> set[tuple]:
        """Return a name for each row and figure, whatever its value."""
        rows = {(row.encoder, row.feature, row.protocol, row.labels, row.data) for row in self.rows}
        of_samples = self.generation.results if self.generation is not None else []
        return (
            rows
            | {("generation", result.extractor, name) for result in of_samples for name in result.figures}
            | {("bidirectional", figure.name) for figure in self.bidirectional or ()}
        )

    def to_json(self) -> dict:
        """Return the content of probe.json: numbers that are not finite, which JSON does not have, are null."""
        return _to_json(self)

    def not_finite(self) -> list[str]:
        """Return the names of the figures of samples and of pairs that are infinite or NaN."""
        of_samples = self.generation.results if self.generation is not None else []
        found = [item for result in of_samples for item in result.figures.items()]
        found += [(figure.name, figure.value) for figure in self.bidirectional or ()]
        return [name for name, value in found if value is not None and not math.isfinite(value)]

    @classmethod
    def from_json(cls, content: object) -> "ProbeResult":
        """Read the content of a probe.json of any version: absent and null keys keep their default.

        Keys that are not known are ignored. Raises ProbeError, which names the key, what was expected and what found.
        """
        return from_json(cls, content, "")

    @classmethod
    def read(cls, path: Path) -> "ProbeResult":
        """Read a probe.json; ProbeError where it holds something else, OSError where it cannot be read."""
        expected = f"{path}: expected what bigbigan-probe writes"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested too deeply
            raise ProbeError(f"{expected}, found no JSON ({error}); probe anew") from None
        try:
            return cls.from_json(content)
        except ProbeError as error:
            raise ProbeError(f"{expected}, found another form ({error}); probe anew") from None


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        pairs = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {_key(f): _to_json(v) for f, v in pairs if v is not None or "optional" not in f.metadata}
    if isinstance(value, dict):
        return {key: _to_json(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_to_json(inner) for inner in value] if isinstance(value, list) else value


def _key(declared: dataclasses.Field) -> str:
    return declared.metadata.get("key", declared.name)


def from_json(kind: Any, value: Any, place: str) -> Any:
    """Return `value`, as JSON has it, as the type `kind`; ProbeError names the `place` where it does not fit."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in UNIONS:  # T | None
        return None if value is None else from_json(inner[0], value, place)
    if origin is list:
        items = _checked(list, value, place)
        if inner[0] in SCALARS and all(_is(inner[0], item) for item in items):  # a matrix has a million of them
            return items
        return [from_json(inner[0], item, f"{place}[{i}]") for i, item in enumerate(items)]
    if origin is dict:
        items = _checked(dict, value, place).items()
        kept = (item for item in items if item[1] is not None or get_origin(inner[1]) in UNIONS)
        return {key: from_json(inner[1], item, _below(place, key)) for key, item in kept}
    if dataclasses.is_dataclass(kind):
        return _object(kind, value, place)
    return _checked(kind, value, place)


def _object(kind: Any, value: Any, place: str) -> Any:
    if kind is Figure and _is(float, value):  # a figure may be a plain number
        value = {"mean": value}
    content, types, found = _checked(dict, value, place), get_type_hints(kind), {}
    for declared in dataclasses.fields(kind):
        inner = content.get(_key(declared))
        if inner is not None:
            found[declared.name] = from_json(types[declared.name], inner, _below(place, _key(declared)))
        elif declared.default is dataclasses.MISSING and declared.default_factory is dataclasses.MISSING:
            _checked(types[declared.name], None, _below(place, _key(declared)))
    return kind(**found)


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


SCALARS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
NAMES = SCALARS | {list: "a list", dict: "an object"}


def _is(kind: type, value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return kind in (int, float) and -LARGEST < value < LARGEST
    return type(value) is kind


def _checked(kind: type, value: Any, place: str) -> Any:
    if _is(kind, value):
        return value
    found = "nothing" if value is None else NAMES.get(type(value), "something else")
    found += f" of {value.bit_length()} bits" if type(value) is int and abs(value) >= LARGEST else ""
    raise ProbeError(f"{printable(place[:200]) or 'the file'}: expected {NAMES[kind]}, found {found}")
