"""The figures at the end of a run: how well held-out images come back."""

import numpy as np
import torch

from bigbigan.data import Images, evaluation_batches, to_signed
from bigbigan.layers import pool_to
from bigbigan.metrics.reconstruction import nearest_neighbour_agreement, relative_error
from bigbigan.model import BigBiGAN

EVALUATION_LIMIT = 2048  # held-out images that the figures look at
NEIGHBOURS_LIMIT = 20_000  # training images up to which their pixels are searched for neighbours


@torch.no_grad()
def reconstruction_figures(model: BigBiGAN, train: Images, test: Images, neighbours: bool = True) -> dict[str, float]:
    """G(z_mean) of held-out images, beside random pairs → {} with fewer than two, else

    reconstruction_error_relative (`relative_error`), n_test; and with labels and not too many training images
    reconstruction_1nn_agreement (`nearest_neighbour_agreement`). A conditional G is told the images' classes. {} without E.
    """
    if model.encoder is None:
        return {}
    device = next(model.encoder.parameters()).device
    x, y, at = [], [], []
    for pixels, indices in evaluation_batches(test, model.encoder.image_size, 256, EVALUATION_LIMIT):
        part = to_signed(pixels).to(device)
        classes = torch.from_numpy(test.labels[indices]).to(device) if model.generator.classes else None
        y.append(model.generator(model.encoder(part).mean, classes).float().cpu())
        x.append(pool_to(part, y[-1].shape[-1]).cpu())
        at.append(indices)
    if sum(map(len, at)) < 2:
        return {}
    x, y, at = torch.cat(x), torch.cat(y), np.concatenate(at)
    figures = {"reconstruction_error_relative": relative_error(x, y), "n_test": len(x)}
    if neighbours and train.labels is not None and test.labels is not None and len(train) <= NEIGHBOURS_LIMIT:
        real, indices = zip(*evaluation_batches(train, y.shape[-1], 1024), strict=True)
        real_labels = torch.from_numpy(train.labels[np.concatenate(indices)])
        agreement = nearest_neighbour_agreement(y, torch.from_numpy(test.labels[at]), to_signed(torch.cat(real)), real_labels)
        figures["reconstruction_1nn_agreement"] = agreement
    return figures
