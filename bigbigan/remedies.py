"""What can be done against collapse, and for truncation, beside the objective itself."""

from dataclasses import dataclass

from torch import nn

from bigbigan.config import Config
from bigbigan.layers import clamp_sigma


@dataclass
class Remedies:
    """BigGAN's against collapse (section 4) and for truncation (3.1): see `config.Loss`, `config.Optim`. All are off by default."""

    r1: float = 0.0
    r1_interval: int = 1
    sigma_clamp: float = 0.0
    sigma_clamp_ratio: float = 0.0
    sigma_networks: str = "generator"
    orthogonal: float = 0.0

    @classmethod
    def of(cls, config: Config) -> "Remedies":
        o, loss = config.optim, config.loss
        return cls(loss.r1, loss.r1_interval, o.sigma_clamp, o.sigma_clamp_ratio, o.sigma_networks, loss.orthogonal)

    def clamp(self, network: nn.Module, name: str) -> None:
        if (self.sigma_clamp or self.sigma_clamp_ratio) and self.sigma_networks in (name, "both"):
            clamp_sigma(network, self.sigma_clamp, self.sigma_clamp_ratio)
