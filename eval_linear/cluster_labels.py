"""Label a data set by clusters of an encoder's features.

The command is `python -m eval_linear.cluster_labels CKPT --classes K --out FOLDER`.

Writes the data that CKPT was trained on, or others, as Parquet files in which each image's class is the cluster that
its features fall into: k-means fitted on the training split. With these labels a conditional BigGAN is BigBiGAN's
baseline "BigGAN + Clustering" (table 3):

    bigbigan-train --config table1/no_e --model.classes K --data.path FOLDER
"""

import io
import sys
from dataclasses import dataclass, field
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import tyro
from PIL import Image

from bigbigan.api import load
from bigbigan.config.bounds import AtLeastTwo, NotNegative
from bigbigan.config.command import say
from bigbigan.config.parsing import parse_options
from bigbigan.data import Images
from bigbigan.errors import ProbeError, exit_with_a_sentence
from bigbigan.files import check_writable, expanded, write_whole
from bigbigan.model import absence
from eval_linear.clusters import agreement, fit_clusters
from eval_linear.features import check_names, extract
from eval_linear.probe import ProbeData, open_splits

SHARD = 10_000  # images of one file


@dataclass
class Clusters:
    """Write a data set whose labels are the clusters that an encoder's features fall into."""

    ckpt: tyro.conf.Positional[str]
    """A run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the package."""
    classes: AtLeastTwo
    """Clusters to make."""
    out: Path
    """A new folder for train-*.parquet and test-*.parquet, which --data.path takes."""
    data: ProbeData = field(default_factory=ProbeData)
    feature: str = "avepool_feat"
    """What is clustered: avepool_feat, bn_crelu_feat, z_mean, or the name of a layer of E."""
    seed: NotNegative = 0
    """Of the starts of k-means."""


def main(argv: list[str] | None = None) -> None:
    with exit_with_a_sentence():
        say(write_clusters(parse_options(Clusters, "python -m eval_linear.cluster_labels", argv)))


def write_clusters(options: Clusters) -> str:
    """Cluster the training split, label both splits, write them, and return what was found as sentences."""
    model, out = load(options.ckpt), expanded(options.out)
    if model.encoder is None:
        raise ProbeError(f"{options.ckpt}: {absence('encoder')}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ProbeError(f"--out {out}: expected a new or an empty folder, found something in it; choose another")
    check_writable(out / "train.parquet", "--out")
    check_names(model.encoder, (options.feature,))
    splits = open_splits(options.data, model, common_classes=False)  # all images, whose labels become clusters
    if not 2 <= options.classes <= len(splits.train):
        raise ProbeError(
            f"--classes {options.classes}: expected from 2 to the number of training images, {len(splits.train):,}"
        )
    found, fitted, lines = {}, None, []
    for name, images in (("train", splits.train), ("test", splits.test)):
        x, indices = extract(model.encoder, images, options.data.batch_size, names=(options.feature,))
        x = x[options.feature].numpy()
        fitted = fitted or fit_clusters(x, options.classes, options.seed)
        found[name] = images.subset(indices), fitted.predict(x)
        sizes = np.bincount(found[name][1], minlength=options.classes)
        text = f"{name}: {len(indices):,} images in {options.classes} clusters of {sizes.min():,} to {sizes.max():,}"
        if images.labels is not None:  # never used, only compared
            scores = agreement(images.labels[indices], found[name][1])
            text += f"; against the labels NMI {scores['nmi']:.3f}, accuracy {scores['accuracy']:.1%}"
        lines.append(text)
    out.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in reversed(found.items()):  # training files last: an incomplete folder has none
        write_tables(out, name, images, labels, options.classes)
    flags = f"--data.path {out} --model.classes {options.classes}"
    if limits := splits.train.value_range:  # the files are written as they are
        flags += f" --data.value_range {limits[0]:g} {limits[1]:g}"
    return "\n".join([*lines, f"written to {out}; train on it with {flags}"])


def write_tables(folder: Path, name: str, images: Images, labels: np.ndarray, classes: int) -> None:
    """Write NAME-00000.parquet and so on with the columns image and label, as `datasets` writes them.

    Each file appears whole or not at all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features
    from datasets import Image as ImageFeature

    schema = Features(
        {"image": ImageFeature(), "label": ClassLabel(names=[f"cluster {k}" for k in range(classes)])}
    ).arrow_schema
    for shard, first in enumerate(range(0, len(images), SHARD)):
        last = min(first + SHARD, len(images))

        def write(path: Path, first: int = first, last: int = last) -> None:
            with pq.ParquetWriter(path, schema) as writer:
                for at in range(first, last, 500):
                    rows = range(at, min(at + 500, last))
                    cells = [{"bytes": encoded(images[i]), "path": None} for i in rows]
                    columns = {"image": cells, "label": labels[list(rows)].astype(np.int64)}
                    writer.write_table(pa.table(columns, schema=schema))

        write_whole(folder / f"{name}-{shard:05}.parquet", write)


def encoded(image: Image.Image) -> bytes:
    """Return the bytes of the file that a picture was opened from, or a PNG of a picture that came from no file."""
    if image.format and getattr(image, "fp", None) is not None:
        image.fp.seek(0)
        return image.fp.read()
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
