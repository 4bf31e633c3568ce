"""Tell which images are of one patient, subject or scan, by the names of their folders and files.

Images of one patient on both sides of a split make a probe measure how well patients are recognised.
"""

import re

import numpy as np

from bigbigan.data.images import Images

PATIENTS = ("patient", "pat", "subject", "subj", "sub", "participant")  # and a number
VISITS = ("case", "study", "exam", "visit", "scan", "series")
SCANS = (*VISITS, "volume", "vol", "slide")


def _numbered(words: tuple[str, ...]) -> re.Pattern:
    return re.compile(rf"(?i)(?<![^/_. -])(?:{'|'.join(words)})[-_. ]?\d+")


PATIENT, SCAN = _numbered(PATIENTS), _numbered(SCANS)


def patients_of(images: Images) -> np.ndarray:
    """Return what names the patient of each image, (n,) texts; "" where its path names none.

    "elbow/patient00001/view1.png" is of "patient00001", as "wrist/patient00001/view1.png" is, and "sub-01_T1.png" of
    "sub-01". Where no patient is named, "site2/scan7/slice3.png" is of "site2/scan7": each folder counts its own scans.
    """
    paths = _paths(images, PATIENT, SCAN)
    return np.array([_patient(path) or _up_to(SCAN, path) for path in paths], object)


def certain_patients(images: Images) -> set[str]:
    """Return the beginnings of the images' paths that name a patient: those of two folders count as two."""
    return {_up_to(PATIENT, path) for path in _paths(images, PATIENT)} - {""}


def _paths(images: Images, *patterns: re.Pattern) -> list[str]:
    """Return the images' paths; "" where there is none, and everywhere where the classes are patients, or scans."""
    if any(_up_to(pattern, name) == name for pattern in patterns for name in images.class_names or () if name):
        return [""] * len(images)
    return [path or "" for path in images.paths()]


def _patient(path: str) -> str:
    return found.group().lower() if (found := PATIENT.search(path)) else ""


def _up_to(pattern: re.Pattern, path: str) -> str:
    return path[: found.end()] if (found := pattern.search(path)) else ""
