"""What watches a run: stop requests, values that are not finite, collapse; and how it goes on."""

from bigbigan.guard.collapse import Guard, Watch, signs
from bigbigan.guard.failure import TrainingFailure, check_finite, check_finite_weights
from bigbigan.guard.stopping import StopRequest

__all__ = ["Guard", "StopRequest", "TrainingFailure", "Watch", "check_finite", "check_finite_weights", "signs"]
