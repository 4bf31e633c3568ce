"""What F sees, for small data: DiffAugment's and ADA's transforms of the images of both kinds of pairs."""

from bigbigan.augmentation.adaptive import Augmentation
from bigbigan.augmentation.policies import ADA_NUMBERS, DIFFAUGMENT_NUMBERS, ada, diffaugment
from bigbigan.augmentation.transforms import recolour, warp

__all__ = ["ADA_NUMBERS", "DIFFAUGMENT_NUMBERS", "Augmentation", "ada", "diffaugment", "recolour", "warp"]
