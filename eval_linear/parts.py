"""Decide which parts of a probe a model and its data allow, and say what the others need."""

from collections.abc import Collection
from typing import Literal, get_args

from bigbigan.data.classes import why_no_classes
from bigbigan.errors import ProbeError
from bigbigan.model import BigBiGAN, absence
from eval_linear.representations import Splits

Part = Literal["linear", "knn", "kmeans", "generation", "pairs", "classes"]
PARTS: tuple[Part, ...] = get_args(Part)
OF_CLASSES: tuple[Part, ...] = ("linear", "knn", "kmeans")  # judge the features by labels
HOW_TO_LABEL = (
    "give them with --data.label_column NAME, a column of the table or of a .csv file beside the images, or with "
    "--data.path LABELLED, which are other images"
)


def choose_parts(
    asked: Collection[Part], model: BigBiGAN, splits: Splits, name: str
) -> tuple[tuple[Part, ...], list[str]]:
    """Return the parts to measure, and a sentence for each reason why some parts cannot be measured.

    asked: the parts that the user named, or none for all that can be measured. A named part that cannot be measured is
    a ProbeError.  name: what was probed, for messages.
    """
    needs = {part: what_is_missing(part, model, splits) for part in PARTS}
    for part in asked:
        if needs[part]:
            raise ProbeError(f"{name}: --parts {part}: {needs[part]}")
    reasons: dict[str, list[str]] = {}
    for part in PARTS:
        if needs[part] and (part != "classes" or model.classes):  # a conditional model's own part
            reasons.setdefault(needs[part], []).append(part)
    sentences = [f"not measured: {', '.join(parts)}; {reason}" for reason, parts in reasons.items()]
    return tuple(part for part in PARTS if (part in asked if asked else not needs[part])), sentences


def networks_for(asked: Collection[Part]) -> tuple[str, ...] | None:
    """Return the names of the networks that these parts of a probe look at; None for all.

    asked: as of `choose_parts`.
    """
    if not asked or "pairs" in asked:
        return None
    return ("encoder",) if set(asked) <= set(OF_CLASSES) else ("encoder", "generator")


def what_is_missing(part: Part, model: BigBiGAN, splits: Splits) -> str:
    """Return what `part` expects that the model or the data do not have, "" if it can be measured."""
    if part in (*OF_CLASSES, "pairs") and model.encoder is None:
        return absence("encoder")
    if part == "classes" and not model.classes:
        return "expected a conditional model, found one without classes"
    if part == "pairs" and len(splits.test) < 2:
        return f"expected two test images or more, found {len(splits.test)}; name a larger split, --data.test_split"
    if part in (*OF_CLASSES, "classes") or (part == "pairs" and model.classes):
        why = why_no_classes(splits.train, splits.test)
        return f"expected labels of two classes or more, found that {why}; {HOW_TO_LABEL}" if why else ""
    return ""
