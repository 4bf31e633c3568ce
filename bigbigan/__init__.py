"""BigBiGAN (Donahue & Simonyan, NeurIPS 2019): train it, and use its encoder.

import bigbigan
features = bigbigan.encode("photos/", model="runs/digits", outputs="avepool_feat")
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors, which do not follow `__getattr__`
    from bigbigan.api import as_tensor as as_tensor
    from bigbigan.api import discriminate as discriminate
    from bigbigan.api import encode as encode
    from bigbigan.api import generate as generate
    from bigbigan.api import grid as grid
    from bigbigan.api import list_images as list_images
    from bigbigan.api import load as load
    from bigbigan.api import neighbours as neighbours
    from bigbigan.api import reconstruct as reconstruct
    from bigbigan.api import to_pil as to_pil
    from bigbigan.errors import BigBiGANError as BigBiGANError
    from bigbigan.errors import CheckpointError as CheckpointError
    from bigbigan.errors import InputError as InputError
    from bigbigan.errors import UnreadableImage as UnreadableImage
    from bigbigan.model import BigBiGAN as BigBiGAN
    from bigbigan.networks.discriminator import Discriminator as Discriminator
    from bigbigan.networks.encoder import Encoder as Encoder
    from bigbigan.networks.generator import Generator as Generator
    from bigbigan.release.shipped import models as models
    from bigbigan.uses.backbones import backbone as backbone
    from bigbigan.uses.backbones import to_timm as to_timm
    from bigbigan.uses.sklearn_features import BigBiGANFeatures as BigBiGANFeatures

__version__ = "0.1.0"

_PUBLIC = {
    "BigBiGAN": "bigbigan.model",
    "BigBiGANError": "bigbigan.errors",
    "CheckpointError": "bigbigan.errors",
    "InputError": "bigbigan.errors",
    "UnreadableImage": "bigbigan.errors",
    "BigBiGANFeatures": "bigbigan.uses.sklearn_features",
    "Discriminator": "bigbigan.networks.discriminator",
    "Encoder": "bigbigan.networks.encoder",
    "Generator": "bigbigan.networks.generator",
    "as_tensor": "bigbigan.api",
    "backbone": "bigbigan.uses.backbones",
    "discriminate": "bigbigan.api",
    "encode": "bigbigan.api",
    "generate": "bigbigan.api",
    "grid": "bigbigan.api",
    "list_images": "bigbigan.api",
    "load": "bigbigan.api",
    "models": "bigbigan.release.shipped",
    "neighbours": "bigbigan.api",
    "reconstruct": "bigbigan.api",
    "to_pil": "bigbigan.api",
    "to_timm": "bigbigan.uses.backbones",
}
__all__ = [*_PUBLIC, "__version__"]


if not TYPE_CHECKING:  # with it, a type checker would take any name for one of ours

    def __getattr__(name: str):
        """Public names are imported when they are first used, so that `import bigbigan` is cheap."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'bigbigan' has no attribute {name!r}")
        return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_PUBLIC))
