"""Guards of a run: requests to stop, values that are not finite, collapse, and how the run goes on."""

from bigbigan.errors import TrainingFailure
from bigbigan.training.guard.collapse import CollapseProbe, Guard, signs
from bigbigan.training.guard.failure import check_finite, check_finite_weights
from bigbigan.training.guard.stopping import StopRequest

__all__ = ["CollapseProbe", "Guard", "StopRequest", "TrainingFailure", "check_finite", "check_finite_weights", "signs"]
