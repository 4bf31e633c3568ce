"""How many cores a process of a job has."""

import os


def cores() -> int:
    """Return the cores of each process of this job on this machine: of those that it may use, its share."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
