"""Compute the features of a data set of any size into a folder of Parquet files, and go on where that was stopped.

File k of the folder is the work of process k modulo the number of processes. The processes need not talk to each other:
a file that is there is done, and nothing else says what is.
"""

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from tqdm.auto import tqdm

from bigbigan.data import Images, fingerprint
from bigbigan.data.inputs import Batch, read_batches
from bigbigan.errors import FeatureError, UnreadableImage
from bigbigan.features import shards
from bigbigan.features.shards import Manifest, Unread
from bigbigan.metrics.cache import TRANSFORM, digest
from bigbigan.model import BigBiGAN, absence

SMALLEST, LARGEST, FILES = 250, 5000, 100  # images of a file by default, and about how many files
log = logging.getLogger(__name__)


def shard_images(images: int) -> int:
    """Return how many images a file has by default: a hundredth of them all, from `SMALLEST` to `LARGEST`."""
    return min(max(SMALLEST, -(-images // FILES)), LARGEST)


def manifest_of(
    model: BigBiGAN, images: Images, outputs: tuple[str, ...], dtype: str, per_shard: int, names: tuple[str, str]
) -> Manifest:
    """Return what an extraction is bound to. per_shard: images of a file, 0 for the default.  names: of model and data.

    Raises FeatureError.
    """
    if model.encoder is None:
        raise FeatureError(f"{names[0]}: {absence('encoder')}")
    trained = (model.card or {}).get("data", {}).get("value_range")
    limits = images.value_range or (tuple(trained) if trained else None)
    return Manifest(
        model=digest(model.encoder.state_dict()),
        data=fingerprint(images),
        images=len(images),
        transform=TRANSFORM,
        image_size=model.encoder.image_size,
        value_range=limits,
        outputs=outputs,
        dtype=dtype,
        shard_images=per_shard or shard_images(len(images)),
        checkpoint=names[0],
        path=names[1],
    )


class Extraction:
    """Fill a folder with the features of images, as process `rank` of `processes`.

    batch_size: images through E at once.  max_unreadable: the share of images that cannot be read above which
    DataError is raised; each process counts its own.
    """

    def __init__(
        self,
        model: BigBiGAN,
        images: Images,
        folder: Path,
        manifest: Manifest,
        *,
        batch_size: int = 64,
        rank: int = 0,
        processes: int = 1,
        max_unreadable: float = 0.01,
    ):
        self.model, self.images, self.folder, self.manifest = model.eval(), images, folder, manifest
        self.batch_size, self.max_unreadable, self.rank = batch_size, max_unreadable, rank
        self.began = time.time()
        self.device = next(model.encoder.parameters()).device
        own = range(rank, manifest.shards, processes)
        self.missing = [k for k in own if not shards.is_done(folder, manifest, k)]
        done = sorted(set(own) - set(self.missing))
        self.broken = sum(1 for _ in shards.unreadable(folder, manifest, done))
        size = model.encoder.image_size
        self.columns = shards.schema(
            manifest,
            {name: values.shape[1] for name, values in self._encode(torch.zeros(1, 3, size, size)).items()},
            images.labels is not None,
            images.labels is not None and images.class_names is not None,
        )

    def run(self) -> int | None:
        """Write the files that are missing of this process's share.

        Returns the number of images that cannot be read if all files, of all processes, are there now; else None.
        Raises DataError, FeatureError or OSError.
        """
        with _Progress(self.folder, self.manifest, self.missing, show=self.rank == 0) as progress:
            for k in self.missing:
                left_out: list[Unread] = []
                batches = self._tables(self.manifest.span(k), left_out, progress)
                shards.write_shard(self.folder, self.manifest, k, self.columns, batches, left_out)
                progress.file_done()
        done = shards.is_complete(self.folder, self.manifest)
        return shards.finish(self.folder, self.manifest, self.began) if done else None

    def _tables(self, span: range, left_out: list[Unread], progress: "_Progress") -> Iterator[pa.Table]:
        """Yield the rows of the images of these numbers, and collect those that cannot be read in `left_out`."""
        part = self.images.subset(np.asarray(span))
        paths = part.paths()
        errors: list[UnreadableImage] = []
        done = 0
        batches = read_batches(
            part,
            self.manifest.image_size,
            self.batch_size,
            ahead=0 if self.device.type == "cpu" else 2,
            trained_on=self.manifest.value_range,
            skip=lambda error: (errors.append(error), _log(error)),
        )
        for batch in batches:
            self._check_share(errors)
            yield self._table(part, batch, span.start, paths)
            progress.advance(int(batch.places[-1]) + 1 - done)
            done = int(batch.places[-1]) + 1
        self._check_share(errors)
        self.broken += len(errors)
        left_out += [Unread(span.start + e.place, paths[e.place], e.reason) for e in errors]
        progress.advance(len(part) - done)

    def _check_share(self, errors: list[UnreadableImage]) -> None:
        """Raise DataError when too many images of this process cannot be read. errors: of the file at hand."""
        if errors:
            example = f"{errors[-1].name} ({errors[-1].reason})"
            self.images.check_unreadable(self.broken + len(errors), self.max_unreadable, example)

    def _table(self, part: Images, batch: Batch, first: int, paths: list[str | None]) -> pa.Table:
        """Return a batch of images with their features as rows. Raises FeatureError for what is not finite."""
        places = batch.places
        columns = {"id": pa.array(first + places), "path": pa.array([paths[i] for i in places], pa.string())}
        if part.labels is not None:
            labels = part.labels[places]
            columns["label"] = pa.array(labels)
            if part.class_names is not None:
                columns["class_name"] = pa.array([part.class_names[label] for label in labels], pa.string())
        for name, values in self._encode(batch.x).items():
            columns[name] = shards.feature_column(self._stored(name, values, batch.names))
        return pa.table(columns, schema=self.columns)

    @torch.inference_mode()
    def _encode(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = x.to(self.device, non_blocking=True)
        noise = x.new_zeros(len(x), self.model.encoder.latent_dim)  # of z_sample, which is not kept
        found = self.model.encode(x, noise)
        return {name: found[name].float().cpu() for name in self.manifest.outputs}

    def _stored(self, name: str, values: torch.Tensor, names: list[str]) -> np.ndarray:
        """Return features (n, C) in the type that is kept. Raises FeatureError for what is not finite in it."""
        stored = values.to(getattr(torch, self.manifest.dtype))
        if not bool(stored.isfinite().all()):
            worst = int((~stored.isfinite().all(1)).nonzero()[0])
            cure = (
                "use --dtype float32" if values.isfinite().all() else "the encoder is broken, take another checkpoint"
            )
            raise FeatureError(
                f"{name} of {names[worst]}: expected finite numbers in {self.manifest.dtype}, found values from "
                f"{float(values[worst].min()):g} to {float(values[worst].max()):g}; {cure}"
            )
        return stored.numpy()


def _log(error: UnreadableImage) -> None:
    log.warning("unreadable image %s: skipped: %s", error.name, error.reason)


class _Progress:
    """Show how much of all files is done, by this process and by others, with the time left.

    missing: the files that this process makes.  show: whether to.
    """

    def __init__(self, folder: Path, manifest: Manifest, missing: list[int], show: bool):
        self.folder, self.manifest = folder, manifest
        there = {k for k in range(manifest.shards) if (folder / manifest.name(k)).exists()} - set(missing)
        self.others = set(range(manifest.shards)) - there - set(missing)
        self.bar = tqdm(
            total=manifest.images,
            initial=sum(len(manifest.span(k)) for k in there),
            unit="img",
            desc="features",
            smoothing=0.05,
            mininterval=0.5 if sys.stderr.isatty() else 30,
            disable=not show,
        )

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_error) -> None:
        self.bar.close()

    def advance(self, count: int) -> None:
        """Count images of this process."""
        self.bar.update(count)

    def file_done(self) -> None:
        """Look which files of other processes are there by now, and count their images."""
        if self.bar.disable:
            return
        done = {k for k in self.others if (self.folder / self.manifest.name(k)).exists()}
        self.others -= done
        self.bar.update(sum(len(self.manifest.span(k)) for k in done))
