"""Find nearest neighbours in a folder of features by an approximate index, which is made once and kept in the folder.

The index is an HNSW graph of faiss (Malkov & Yashunin 2016, arXiv:1603.09320) over the features as they are stored, in
the file `_hnsw-FEATURE-METRIC-KEY.faiss`; KEY names the extraction. faiss alone can read it: `faiss.read_index`.
"""

import functools
import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from bigbigan.errors import FeatureError, InputError
from bigbigan.features.shards import Manifest, read_manifest, read_rows
from bigbigan.files import printable, write_whole

LINKS = 32  # of each row in the graph, faiss's M: about 270 bytes
BUILD, LOOK = 128, 128  # rows that are looked at when one is added, and at least when one is searched for
CHUNK = 4096  # rows of features added at a time
log = logging.getLogger(__name__)


def candidates(queries: Tensor, folder: Path, output: str, metric: str, count: int) -> tuple[Tensor, Tensor]:
    """Return rows that are probably the nearest to each of `queries`: ids int64 (m, c) and values float64 (m, c, C).

    queries: float64 (m, C), of length 1 for cosine, as the values are.  c: `count`, or the number of rows if that is
    less. An id of −1 stands for a row that the graph did not lead to.
    Raises FeatureError without faiss, or for features that are not finite; InputError for queries of another width.
    """
    faiss = load_faiss()
    manifest = read_manifest(folder)
    path = folder / f"_hnsw-{output}-{metric}-{manifest.key()[:12]}.faiss"
    index = _read(path, path.stat().st_mtime) if path.is_file() else _build(folder, manifest, output, metric, path)
    count = min(count, index.ntotal)
    wanted = faiss.SearchParametersHNSW(efSearch=max(LOOK, 2 * count))
    sought = np.ascontiguousarray(queries.numpy(), np.float32)
    if sought.shape[1] != index.d:
        raise InputError(f"query: expected (m, {index.d}), as the features are, found {tuple(queries.shape)}")
    _, ids = index.search(sought, count, params=wanted)
    values = np.zeros((*ids.shape, index.d), np.float32)
    values[ids >= 0] = index.reconstruct_batch(ids[ids >= 0])
    return torch.from_numpy(ids), torch.from_numpy(values).double()


def load_faiss() -> ModuleType:
    """Return the package faiss. Raises FeatureError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise FeatureError(
            "index 'hnsw': expected the package faiss-cpu, found none; pip install \"bigbigan[index]\", or leave index "
            "out for the exact search"
        ) from None
    return faiss


@functools.lru_cache(maxsize=2)
def _read(path: Path, changed: float):
    """Return the index that a file holds, mapped into memory. changed: the file's time, so that a new one is read."""
    faiss = load_faiss()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise FeatureError(
            f"{printable(path)}: expected a readable index, found {reason}; delete it, and it is made anew"
        ) from None


def _build(folder: Path, manifest: Manifest, output: str, metric: str, path: Path):
    """Return an index of all rows of a folder, and keep it at `path`; a disk that refuses it is a warning."""
    faiss = load_faiss()
    index = None
    with tqdm(total=manifest.images, unit="img", desc="index", mininterval=1) as progress:
        for rows in read_rows(folder, output, CHUNK):
            values = rows.values.astype(np.float32)
            if not np.isfinite(values).all():
                raise FeatureError(f"features: expected finite numbers in {output}, found NaN or infinity")
            if metric == "cosine":
                values = F.normalize(torch.from_numpy(values).double(), dim=1, eps=1e-300).float().numpy()
            if index is None:
                kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
                index = faiss.IndexIDMap2(faiss.IndexHNSWFlat(values.shape[1], LINKS, kind))
                faiss.downcast_index(index.index).hnsw.efConstruction = BUILD
            index.add_with_ids(values, rows.ids.astype(np.int64))
            progress.update(len(values))
    if index is None:
        raise FeatureError(f"{printable(folder)}: expected features of some images, found none")
    for old in folder.glob(f"_hnsw-{output}-{metric}-*.faiss"):  # of an extraction that was here before
        old.unlink(missing_ok=True)
    try:
        write_whole(path, lambda beside: faiss.write_index(index, str(beside)))
    except (OSError, RuntimeError) as error:  # faiss raises the latter for a full disk
        log.warning("%s: could not be kept, the next search makes it anew (%s)", printable(path), error)
    return index
