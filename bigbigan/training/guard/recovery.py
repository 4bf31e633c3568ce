"""How a run goes on after a value was not finite, or after a collapse: a bounded number of times, alike everywhere."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from bigbigan.config import Config
from bigbigan.distributed import barrier, rank
from bigbigan.errors import TrainingFailure
from bigbigan.training import checkpoint
from bigbigan.training.guard.health import unsound
from bigbigan.training.schedule import NETWORKS
from bigbigan.training.state import TrainingState

HALF = 0.5


class RecoveryPolicy:
    """Carries out --run.on_nonfinite, and the way back after a collapse.

    folder: of the checkpoints.  note: a function (kind, text, images seen, iteration) that writes down what was done.
    """

    def __init__(self, state: TrainingState, config: Config, folder: Path, device: torch.device, note: Callable):
        self.state, self.config, self.folder, self.device, self.note = state, config, folder, device, note
        self.back: Path | None = None  # the checkpoint of a roll-back that is not written down yet

    def tell(self, text: str) -> None:
        """Write down and say what was done."""
        self.note("recovery", text, self.state.images_seen, self.state.iterations)

    def after_nonfinite(self, what: str) -> None:
        """Go on as `run.on_nonfinite` says. Raises TrainingFailure where the run may not go on.

        what: was not finite, in words; the update that met it moved no parameter.
        """
        how, seen = self.config.run.on_nonfinite, self.state.images_seen
        found = f"at {seen:,} images {what}: expected finite numbers"
        self._count(found, how == "stop")
        spoilt = unsound(self.state.model.state_dict())  # which leaving updates out cannot mend
        if how == "roll_back" or spoilt:
            again = self._back(found, seen)
        else:
            again = False
            self.tell(f"{found}; the update was left out")
        if again or how == "shrink":
            self._lower(NETWORKS)
        self._record()

    def after_collapse(self, what: str, good: Path | None) -> None:
        """Go back to the checkpoint `good` from before a collapse, with half the rates of E and G.

        In BigGAN a lower rate of G put collapse off, and one of D brought it. Raises TrainingFailure where there is no
        such checkpoint, or the run may not go on.
        """
        found = f"at {self.state.images_seen:,} images {what}"
        self._count(found, good is None)
        barrier(self.device)
        if rank() == 0:
            checkpoint.drop_after(self.folder, int(good.name))
        barrier(self.device)
        self._back(found, self.state.images_seen)
        self._lower(("encoder", "generator"))
        self.state.guard.good_at, self.state.guard.known = self.state.images_seen, set()
        self._record()

    def _record(self) -> None:
        """Write a roll-back into its checkpoint, so that a run which is killed before the next one knows of it."""
        if rank() == 0 and self.back is not None:
            checkpoint.record_recovery(self.back, self.state)
        self.back = None

    def _count(self, found: str, stop: bool) -> None:
        self.state.recovery.times += 1
        if not stop and self.state.recovery.times <= self.config.run.recoveries:
            return
        tried = self.state.recovery.times - 1
        newest = max(checkpoint.complete(self.folder), default=None, key=lambda path: int(path.name))
        raise TrainingFailure(
            f"{found}. The run went on {tried} times after such a thing "
            f"(--run.recoveries {self.config.run.recoveries}). "
            f"The newest good checkpoint is {newest or 'none'}; lower the rates (--optim.*_lr), train in float32 "
            "(--run.precision float32), or see docs/collapse.md"
        )

    def _back(self, found: str, seen: int) -> bool:
        """Load the newest checkpoint and skip the images from there to `seen`; return whether this is the second
        time."""
        before, last = self.state.recovery, self.state.guard.rolled_back_to
        path = checkpoint.resume(self.folder, self.state, self.config, self.device)
        if path is None:
            raise TrainingFailure(
                f"{found}, before the first checkpoint; lower the rates (--optim.*_lr), see docs/collapse.md"
            )
        back_at = self.state.images_seen
        again = back_at in (last, self.state.guard.rolled_back_to)  # a return since it was saved
        before.images_skipped += seen - back_at
        self.state.guard.rolled_back_to = back_at
        self.state.recovery, self.back = before, path
        self.tell(f"{found}; back to {path}, and past {seen - back_at:,} images")
        return again

    def _lower(self, networks: Iterable[str]) -> None:
        factors = self.state.recovery.factors
        lowered = {name: HALF * factors.get(name, 1.0) for name in networks}
        factors |= lowered
        if lowered:
            self.tell("rates now × " + ", ".join(f"{factor:g} of the {name}" for name, factor in lowered.items()))
