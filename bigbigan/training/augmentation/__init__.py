"""What F sees, for small data: DiffAugment's and ADA's transforms of the images of both kinds of pairs."""

from bigbigan.training.augmentation.adaptive import DiscriminatorAugmentation
from bigbigan.training.augmentation.policies import ADA_NUMBERS, DIFFAUGMENT_NUMBERS, ada, diffaugment
from bigbigan.training.augmentation.transforms import recolour, warp

__all__ = ["ADA_NUMBERS", "DIFFAUGMENT_NUMBERS", "DiscriminatorAugmentation", "ada", "diffaugment", "recolour", "warp"]
