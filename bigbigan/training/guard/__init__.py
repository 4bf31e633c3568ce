"""What watches a run: stop requests, values that are not finite, collapse; and how it goes on."""

from bigbigan.errors import TrainingFailure
from bigbigan.training.guard.collapse import Guard, Watch, signs
from bigbigan.training.guard.failure import check_finite, check_finite_weights
from bigbigan.training.guard.stopping import StopRequest

__all__ = ["Guard", "StopRequest", "TrainingFailure", "Watch", "check_finite", "check_finite_weights", "signs"]
