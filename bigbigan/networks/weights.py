"""Strict loading of tensors into networks; the error names what does not fit."""

from torch import Tensor, nn


def load_weights(network: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load `tensors` into `network`; ValueError names tensors that are missing, unknown or of another shape.

    where: what the tensors came from, for the message.
    """
    check_weights(network.state_dict(), tensors, where)
    network.load_state_dict(tensors)


def check_weights(own: dict[str, Tensor], tensors: dict[str, Tensor], where: str) -> None:
    """Raise ValueError unless `tensors` has exactly the names, shapes and kinds of number of `own`."""
    wrong = [f"{k} is missing" for k in own.keys() - tensors.keys()]
    wrong += [f"{k} is unknown" for k in tensors.keys() - own.keys()]
    both = own.keys() & tensors.keys()
    wrong += [
        f"{k} has shape {tuple(tensors[k].shape)}, expected {tuple(own[k].shape)}"
        for k in both
        if own[k].shape != tensors[k].shape
    ]
    wrong += [
        f"{k} is of {tensors[k].dtype}, expected {own[k].dtype}"
        for k in both
        if own[k].is_floating_point() != tensors[k].is_floating_point()
    ]
    if wrong:
        shown = "; ".join(sorted(wrong)[:4])
        raise ValueError(
            f"{where}: the weights are of another architecture than the config ({len(wrong)} tensors): {shown}"
        )
