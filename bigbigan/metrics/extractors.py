"""Load the extractor of published figures: the Inception network of 2015-12-05, as torch-fidelity carries it.

An extractor is any callable: images uint8 (N, 3, S, S) → (features float32 (N, D), logits float32 (N, K)), on its own
device, with
    name      what its figures are called by, such as "inception2015"
    accuracy  its share of right answers on held-out images; None where that is not the question
    digest    tells its weights from others in the cache of reference statistics
"""

import hashlib
import urllib.request
from pathlib import Path

import torch
from torch import Tensor

from bigbigan.distributed.collectives import rank
from bigbigan.distributed.gather import everywhere
from bigbigan.errors import MetricsUnavailable
from bigbigan.files import expanded, write_whole

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"
SIZE = "91 MiB"
CHECKSUM = "6726825d"  # the first digits of the file's SHA-256, which its name carries
PATIENCE = 30  # seconds without an answer


class Inception2015:
    """Compute pool features (N, 2048) and logits without bias (N, 1008) of uint8 images.

    They are resized to 299 px as TensorFlow 1 did.
    """

    name = "inception2015"
    accuracy = None
    digest = CHECKSUM

    def __init__(self, network: torch.nn.Module, device: torch.device | str = "cpu"):
        self.network, self.device = network.to(device), torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(images.to(self.device))


def inception2015(
    weights: str | Path | None = None, device: torch.device | str = "cpu", download: bool = True
) -> Inception2015:
    """Return the extractor of published IS and FID.

    weights: the file; None looks in TORCH_HOME/hub/checkpoints, then downloads it there if `download`. Where it cannot
    be had, on any process, every process raises MetricsUnavailable, whose message says what is missing and where to put
    it.
    """
    problem, network = "", None
    for turn in (True, False):  # the first process downloads, the others find what it left
        if (rank() == 0) == turn:
            try:
                _check_installed()
                network = _load(expanded(weights) if weights is not None else _find(download))
            except MetricsUnavailable as error:
                problem = str(error)
        if not everywhere(problem == ""):
            raise MetricsUnavailable(problem or _sentence("another process of this job could not load them"))
    return Inception2015(network, device)


def _sentence(found: str) -> str:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return (
        f"figures of the Inception network of 2015 need its weights, {WEIGHTS} ({SIZE}), but {found}; "
        f"fetch {URL} where there is a network and put it in {folder}, or give its path "
        "(of the probe: --generation.inception_weights)"
    )


def _find(download: bool) -> Path:
    """Return the file in torch's cache, downloaded first if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    if path.is_file():
        return path
    if not download:
        raise MetricsUnavailable(_sentence(f"{path} is not there"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _download)
    except OSError as error:  # urllib's errors and time-outs too
        raise MetricsUnavailable(_sentence(f"the download failed ({getattr(error, 'reason', error)})")) from None
    return path


def _download(path: Path) -> None:
    with urllib.request.urlopen(URL, timeout=PATIENCE) as answer, path.open("wb") as file:
        while block := answer.read(2**20):
            file.write(block)
    if not _checksum(path).startswith(CHECKSUM):
        raise MetricsUnavailable(_sentence("the download was cut short or is another file"))


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_installed() -> None:
    """Raise MetricsUnavailable without torch-fidelity, before its weights are fetched for nothing."""
    try:
        import torch_fidelity  # noqa: F401
    except ImportError:
        raise MetricsUnavailable(
            "figures of the Inception network of 2015 need torch-fidelity, which is not installed: "
            "pip install 'bigbigan[metrics]'"
        ) from None


def _load(path: Path) -> torch.nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if not path.is_file():
        raise MetricsUnavailable(_sentence(f"{path} is not there"))
    found = _checksum(path)
    if not found.startswith(CHECKSUM):
        raise MetricsUnavailable(
            _sentence(
                f"{path} is cut short or another file: expected a SHA-256 that begins with {CHECKSUM}, "
                f"found {found[:8]}… of {path.stat().st_size:,} bytes"
            )
        )
    try:
        # torch-fidelity would unpickle anything: here only tensors pass.
        torch.load(path, map_location="cpu", weights_only=True)
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(path))
    except Exception as error:  # whatever an archive or its contents raise
        raise MetricsUnavailable(_sentence(f"{path} holds something else ({type(error).__name__})")) from None
