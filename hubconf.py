"""Entries of torch.hub: `torch.hub.load(FOLDER, "encoder", source="local", checkpoint="runs/digits")`.

FOLDER is a clone of this repository. `checkpoint` is a run folder, checkpoint folder, release folder, hub id, or the
name of a model that comes with the package.
"""

dependencies = ["torch", "torchvision", "timm", "datasets", "sklearn", "safetensors", "huggingface_hub", "tyro"]


def encoder(checkpoint=None, trainable=False, device=None):
    """Return E's trunk as an ordinary network, images (N, 3, S, S) in [−1, 1] → features (N, C): `bigbigan.backbone`.

    checkpoint: a run, checkpoint or release folder, a hub id, or the name of a model that comes with the package; None
        for the one of these that saw natural images.
    trainable: False freezes it; True to fine-tune it.  device: None for a GPU if there is one, else the CPU.
    """
    import bigbigan

    return bigbigan.backbone(checkpoint, trainable=trainable, device=device)


def model(checkpoint=None, device=None):
    """Return the whole model, with `encode`, `generate`, `reconstruct` and `discriminate`: `bigbigan.load`.

    checkpoint, device: as in `encoder`.
    """
    import bigbigan

    return bigbigan.load(checkpoint, device)
