"""Progressive growing (Karras et al. 2018): networks that begin at 4 px and gain a resolution at a time, and the schedule."""

from bigbigan.progressive.growing import (
    Course,
    Growing,
    Growth,
    faded,
    growing_parts,
    grown_like,
    phase,
    ramp_up,
    seen_by,
    set_level,
)
from bigbigan.progressive.networks import GrowingDiscriminator, GrowingGenerator, GrowingTrunk

__all__ = [
    "Course",
    "Growing",
    "GrowingDiscriminator",
    "GrowingGenerator",
    "GrowingTrunk",
    "Growth",
    "faded",
    "grown_like",
    "growing_parts",
    "phase",
    "ramp_up",
    "seen_by",
    "set_level",
]
