"""Make an ordinary network of E's trunk, with torch's batch norms, for training loops of one's own."""

import copy

import torch
from torch import Tensor, nn

from bigbigan.distributed import local_only
from bigbigan.networks.encoder import Encoder
from bigbigan.networks.layers import CrossReplicaBatchNorm, batch_norms
from bigbigan.networks.revnet import ReversibleStage


class Backbone(nn.Module):
    """The backbone maps an image to E's AvePool feature, by a copy of E's trunk with torch's batch norms.

    encoder: whose trunk is copied; it stays as it is.
    trainable: False freezes the weights and keeps the batch norms in evaluation mode, also when a network that contains
        this one is set to training mode.
    Activations are kept, not computed again in the backward pass: torch's batch norms would move their running
    statistics twice.  It is made in evaluation mode.

    num_features: C.  image_size: S, the size of the images that E was trained on; another size that the trunk takes
    works too.
    forward: x (N, 3, S, S) in [−1, 1] → (N, C).
    """

    def __init__(self, encoder: Encoder, trainable: bool = False):
        super().__init__()
        self.num_features, self.image_size, self.trainable = encoder.features, encoder.image_size, trainable
        self.trunk = copy.deepcopy(encoder.trunk)
        for stage in self.trunk.modules():
            if isinstance(stage, ReversibleStage):
                stage.reversible = False
        if hasattr(self.trunk, "set_grad_checkpointing"):
            self.trunk.set_grad_checkpointing(False)
        use_torch_batch_norms(self.trunk, self.image_size)
        self.requires_grad_(trainable)
        self.eval()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last map (N, C', H, W), or the tokens of a transformer; the feature itself of an MLP."""
        return self.trunk.forward_features(x) if hasattr(self.trunk, "forward_features") else self.trunk(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)

    def train(self, mode: bool = True) -> "Backbone":
        """Set training mode; a backbone that is not trainable stays in evaluation mode."""
        return super().train(mode and self.trainable)


@torch.no_grad()
def use_torch_batch_norms(trunk: nn.Module, image_size: int) -> None:
    """Replace every CrossReplicaBatchNorm of `trunk` by torch's batch norm of equal state, and its activation.

    Which of BatchNorm1d, 2d and 3d is read from a forward of one black image.
    """
    axes: dict[nn.Module, int] = {}
    hooks = [
        norm.register_forward_pre_hook(lambda norm, inputs: axes.update({norm: inputs[0].ndim}))
        for norm in batch_norms(trunk)
    ]
    weight, training = next(trunk.parameters()), trunk.training
    with local_only():
        trunk.eval()(weight.new_zeros(1, 3, image_size, image_size))
    trunk.train(training)
    for hook in hooks:
        hook.remove()
    for parent in [*trunk.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, CrossReplicaBatchNorm):
                setattr(parent, name, torch_batch_norm(child, axes.get(child, 4)))


def torch_batch_norm(norm: CrossReplicaBatchNorm, axes: int) -> nn.Module:
    """Return torch's batch norm of the same state, before the activation if there is one.

    axes: of its inputs.  The activation is a module of its own, so that torch's conversion to SyncBatchNorm keeps it.
    """
    kind = {4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(axes, nn.BatchNorm1d)
    like = norm.running_mean
    plain = kind(len(like), norm.eps, affine=norm.weight is not None, device=like.device, dtype=like.dtype)
    plain.load_state_dict(norm.state_dict(), strict=False)  # all but num_batches_tracked
    plain.train(norm.training)
    return plain if norm.activation is None else nn.Sequential(plain, norm.activation)
