"""The last checks: a value that is not finite is neither logged nor saved, and ends the run."""

import math

import torch

from bigbigan.errors import TrainingFailure
from bigbigan.training.guard.health import unsound


def check_finite(values: dict[str, float], images_seen: int, checkpoint: str) -> None:
    """Raise TrainingFailure if a logged value is NaN or infinite."""
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise TrainingFailure(
            f"at {images_seen:,} images {', '.join(wrong)} became {values[wrong[0]]}: expected finite numbers. "
            f"Nothing was saved since {checkpoint}; lower the rates (--optim.*_lr), or train in float32 "
            "(--run.precision float32)"
        )


def check_finite_weights(network: torch.nn.Module, state_of: int, checkpoint: str) -> None:
    """Raise TrainingFailure if a parameter is NaN or infinite, so that no broken state replaces a good checkpoint."""
    if name := unsound(dict(network.named_parameters())):
        raise TrainingFailure(
            f"at {state_of:,} images the weight {name} is not finite. Nothing was saved since {checkpoint}; "
            "expected finite numbers: lower the rates (--optim.*_lr), or train in float32 (--run.precision float32)"
        )
