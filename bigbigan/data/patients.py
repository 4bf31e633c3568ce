"""Tell which images are of one patient, subject or scan, by a column of a table or the names of folders and files.

Images of one patient on both sides of a split make a probe measure how well patients are recognised.
"""

import re
from collections.abc import Sequence

import numpy as np

from bigbigan.data.columns import words
from bigbigan.data.images import Images

PATIENTS = ("patient", "pat", "subject", "subj", "sub", "participant")  # and a number
VISITS = ("case", "study", "exam", "visit", "scan", "series")
SCANS = (*VISITS, "volume", "vol", "slide")
# The columns that are taken, from the first on; all but the first with a word of the second row.
ID_COLUMNS = ("patient", "subject", "participant", "case", "lesion", "slide", "volume", "scan", "study", "exam")
ID_WORDS = {"id", "ids", "no", "nr", "num", "number", "code", "key", "uid"}


def _numbered(words: tuple[str, ...]) -> re.Pattern:
    return re.compile(rf"(?i)(?<![^/_. -])(?:{'|'.join(words)})[-_. ]?\d+")


PATIENT, SCAN = _numbered(PATIENTS), _numbered(SCANS)


def patient_column(columns: Sequence[str]) -> str:
    """Return the column that tells patients apart, or else lesions or scans: "Patient ID", "lesion_id"; "" for none."""
    for word in ID_COLUMNS:
        for name in columns:
            others = set(found := words(name)) - {word}
            if word in found and others <= ID_WORDS and (others or word == ID_COLUMNS[0]):
                return name
    return ""


def patients_of(images: Images) -> np.ndarray:
    """Return what names the patient of each image, (n,) texts: a table's column, or its path; "" for none.

    "elbow/patient00001/view1.png" is of "patient00001", as "wrist/patient00001/view1.png" is, and "sub-01_T1.png" of
    "sub-01". Where no patient is named, "site2/scan7/slice3.png" is of "site2/scan7": each folder counts its own scans.
    """
    paths = _paths(images, PATIENT, SCAN)
    found = np.array([_patient(path) or _up_to(SCAN, path) for path in paths], object)
    return found if images.patients is None else np.where(images.patients != "", images.patients, found)


def certain_patients(images: Images) -> set[str]:
    """Return the patients of images without scans, and those of one number in two folders apart.

    None where each class is one patient.
    """
    found = {_up_to(PATIENT, path) for path in _paths(images, PATIENT)}
    if images.patients is not None and not _classes_are_patients(images):
        found.update(images.patients)
    return found - {""}


def _classes_are_patients(images: Images) -> bool:
    """Return whether the images of each class have one patient in their column."""
    if images.labels is None:
        return False
    pairs = set(zip(images.labels.tolist(), images.patients, strict=True))
    return len(pairs) == len({label for label, _ in pairs})


def _paths(images: Images, *patterns: re.Pattern) -> list[str]:
    """Return the images' paths; "" where there is none, and everywhere where the classes are patients, or scans."""
    if any(_up_to(pattern, name) == name for pattern in patterns for name in images.class_names or () if name):
        return [""] * len(images)
    return [path or "" for path in images.paths()]


def _patient(path: str) -> str:
    return found.group().lower() if (found := PATIENT.search(path)) else ""


def _up_to(pattern: re.Pattern, path: str) -> str:
    return path[: found.end()] if (found := pattern.search(path)) else ""
