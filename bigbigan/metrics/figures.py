"""Describe a figure by its key in stats.jsonl or probe.json: title, unit and direction."""

from bigbigan.metrics import reconstruction
from bigbigan.metrics.generation import OF_FEATURES, OF_PIXELS
from bigbigan.training import records
from eval_linear import result
from eval_linear.result import FigureInfo

FIGURES = (
    *result.FIGURES,
    *records.FIGURES,
    *reconstruction.FIGURES,
    *(info for metric in (*OF_FEATURES, *OF_PIXELS) for info in metric.figures),
)


def describe(key: str) -> FigureInfo | None:
    """Return the description of a figure, of several that cover its key the one with the longest name; None without."""
    return max((info for info in FIGURES if info.covers(key)), key=lambda info: len(info.name), default=None)


def is_share(key: str) -> bool:
    """Return whether a figure is a share in [0, 1], which is shown in per cent."""
    info = describe(key)
    return info is not None and info.unit == "share"


def title_of(key: str) -> str:
    """Return what a figure is called at the head of a chart or column: its key unless all of that is described."""
    info = describe(key)
    return info.title if info is not None and info.name == key else key


def lower_is_better(key: str) -> bool:
    """Return whether a smaller value of a figure is the better one."""
    info = describe(key)
    return info is not None and info.better == "lower"
