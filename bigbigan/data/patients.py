"""Tell which images are of one patient, subject or scan, by a column of a table or the names of folders and files.

Images of one patient on both sides of a split make a probe measure how well patients are recognised. What else images
may have in common, such as a place or a film, is told by the column of --data.group_column.
"""

import difflib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from bigbigan.data.columns import is_missing, words
from bigbigan.data.image_names import is_image_name
from bigbigan.data.images import Images
from bigbigan.errors import DataError
from bigbigan.files import listed

PATIENTS = ("patient", "pat", "subject", "subj", "sub", "participant")  # and a number
VISITS = ("case", "study", "exam", "visit", "scan", "series")
SCANS = (*VISITS, "volume", "vol", "slide")
# The columns that are taken, from the first on; all but the first with a word of the second row.
ID_COLUMNS = ("patient", "subject", "participant", "case", "lesion", "slide", "volume", "scan", "study", "exam")
ID_WORDS = {"id", "ids", "no", "nr", "num", "number", "code", "key", "uid"}


def _numbered(words: tuple[str, ...]) -> re.Pattern:
    return re.compile(rf"(?i)(?<![^/_. -])(?:{'|'.join(words)})(?:[-_. ]?(?:id|no|nr))?[-_. (#=]*\d+")


PATIENT, SCAN = _numbered(PATIENTS), _numbered(SCANS)
# The numbers of patients in TCGA, LIDC-IDRI, ADNI, OASIS and BraTS.
COLLECTED = re.compile(
    r"(?i)(?<![^/_. -])(?:TCGA-\w{2}-\w{4}|LIDC-IDRI-\d+|\d{3}_S_\d{4}|OAS\d+_\d+|BraTS[\w-]{1,40}?[-_]\d{3,})"
    r"(?![^/_. -])"
)
WHOLE = re.compile(r"^(-?\d+)\.0+$")
SIDE = re.compile(r"(?i)(?<=\d)[-_. ](?:left|right|od|os)(?![^/_. -])")  # of eyes, 10_left.jpeg, or of a stereo camera
# The patterns in the order in which they are tried, with texts of which a match has one.
HINTS = {
    PATIENT: PATIENTS,
    COLLECTED: ("tcga-", "lidc-idri-", "_s_", "oas", "brats"),
    SIDE: ("left", "right", "od", "os"),
    SCAN: SCANS,
}


def patient_column(columns: Sequence[str]) -> str:
    """Return the column that tells patients apart, or else lesions or scans: "Patient ID", "lesion_id"; "" for none."""
    for word in ID_COLUMNS:
        for name in columns:
            others = set(found := words(name)) - {word}
            if word in found and others <= ID_WORDS and (others or word == ID_COLUMNS[0]):
                return name
    return ""


def choose_group_column(columns: Sequence[str], asked: str, origin: str) -> str:
    """Return the column whose equal values stay together: that asked for, or else `patient_column`. Raises DataError.

    asked: --data.group_column, or "".
    """
    if asked and asked not in columns:
        lower = {name.lower(): name for name in columns}
        near = "".join(
            f"; did you mean {lower[n]}?" for n in difflib.get_close_matches(asked.strip().lower(), lower, 1)
        )
        if any(map(is_image_name, columns)):
            near = "; the first line of a table must name its columns"
        found = listed(columns) if columns else "no column beside the images"
        raise DataError(f"{origin}: expected the column {asked!r} of --data.group_column, found {found}{near}")
    return asked or patient_column(columns)


def group_names(values: Sequence[object]) -> np.ndarray:
    """Return the values of a column of groups as texts, (n,), "" for none, each group in one spelling.

    A table's whole floats are written as integers, since a column of integers with a gap is one of floats elsewhere.
    """
    names = {value: _group_name(value) for value in set(values)}
    return np.array([names[value] for value in values], object)


def _group_name(value: object) -> str:
    text = "" if value is None or value != value else unicodedata.normalize("NFC", str(value).strip())
    return "" if is_missing(text) else WHOLE.sub(r"\1", text)


def groups_of(images: Images) -> np.ndarray:
    """Return what names the group of each image, (n,) texts: a table's column or, without one, its path; "" for none.

    "elbow/patient00001/view1.png" is of "patient00001", as "wrist/patient00001/view1.png" is, and "sub-01_T1.png" of
    "sub-01"; "10_left.jpeg" and "10_right.jpeg" are of "10". Where no patient is named, "site2/scan7/slice3.png" is of
    "site2/scan7": each folder counts its own scans.
    """
    return _by_paths(images) if images.groups is None else images.groups


def add_missing_patients(images: Images) -> None:
    """Give patients to the images that a table leaves out, by the numbers of patients in their paths.

    A number stands for the patient that the table gives to other images with it, or else for a patient of its own.
    """
    missing = images.groups == ""
    if not missing.any():
        return
    by_path = _by_paths(images)
    pairs = {(name, group) for name, group in zip(by_path, images.groups, strict=True) if name and group}
    called = dict(sorted(pairs, reverse=True))  # of several, the first
    images.groups[missing] = [called.get(name, name) for name in by_path[missing]]


def certain_patients(images: Images, by_column: bool) -> set[str]:
    """Return the patients of a table's column, if by_column; else the beginnings of paths that name a patient.

    Of paths, equal numbers in two folders count as two patients, and scans do not count. Where each class is one
    patient, there are none.
    """
    if by_column:
        return set() if classes_are_groups(images) else set(images.groups) - {""}
    return {_up_to(PATIENT, path) for path in _paths(images, PATIENT)} - {""}


def classes_are_groups(images: Images) -> bool:
    """Return whether the images of each class have one value in their column of groups."""
    if images.labels is None:
        return False
    pairs = set(zip(images.labels.tolist(), images.groups, strict=True))
    return len(pairs) == len({label for label, _ in pairs})


def _by_paths(images: Images) -> np.ndarray:
    paths = _paths(images, PATIENT, SCAN)
    patterns = _worth_a_look(paths)
    return np.array([_patient(path, patterns) for path in paths] if patterns else [""] * len(paths), object)


def _paths(images: Images, *patterns: re.Pattern) -> list[str]:
    """Return the images' paths; "" where there is none, and everywhere where the classes are patients, or scans."""
    if any(_up_to(pattern, name) == name for pattern in patterns for name in images.class_names or () if name):
        return [""] * len(images)
    return [path or "" for path in images.paths()]


def _worth_a_look(paths: list[str]) -> list[re.Pattern]:
    """Return the patterns whose words are in some path: most data sets have none, and patterns take long."""
    text = "\n".join(paths).lower()
    return [pattern for pattern, hints in HINTS.items() if any(hint in text for hint in hints)]


def _patient(path: str, patterns: list[re.Pattern]) -> str:
    for pattern in patterns:
        if found := pattern.search(path):
            if pattern is SCAN:
                return path[: found.end()]
            return path[: found.start()].rpartition("/")[2].lower() if pattern is SIDE else found.group().lower()
    return ""


def _up_to(pattern: re.Pattern, path: str) -> str:
    return path[: found.end()] if (found := pattern.search(path)) else ""
