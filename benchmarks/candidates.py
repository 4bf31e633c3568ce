"""List what leg A of `benchmarks/results.sh` compares: a name, a preset, and the flags that change it. Edit at will.

A name that the ledger does not have yet is tried at the next call of `benchmarks/results.sh A compare`; to try one
again, give it another name. Two more seeds of the base show the effect of chance. Leg B takes the winner's flags over
to the preset that ships, without those of networks (--model…).
"""

BASE = "cifar10"
CANDIDATES: dict[str, tuple[str, str]] = {
    "base": (BASE, ""),
    "E rate x1": (BASE, "--optim.encoder_lr 2e-4"),
    "no crops": (BASE, "--data.augment none"),
    "small networks": ("cifar10_small", ""),
    "base, seed 1": (BASE, "--run.seed 1"),
    "DiffAugment": (BASE, "--optim.augment diffaugment"),
    "DiffAugment, no cutout": (BASE, "--optim.augment diffaugment --optim.augment_policy color,translation"),
    "ADA": (BASE, "--optim.augment ada"),
    "resnet crops": (BASE, "--data.augment resnet"),
    "batch 128": (BASE, "--data.batch_size 128"),
    "one D update": (BASE, "--optim.d_steps 1"),
    "width 96": (BASE, "--model.generator_width 96 --model.discriminator_width 96"),
    "G, D rates x2": (BASE, "--optim.generator_lr 4e-4 --optim.discriminator_lr 4e-4 --optim.encoder_lr 4e-3"),
    "z 128": (BASE, "--model.latent_dim 128"),
    "short average": (BASE, "--optim.ema_decay 0.99469"),
    "base, seed 2": (BASE, "--run.seed 2"),
    "deterministic E": (BASE, "--model.posterior deterministic"),
    "batch 512": (BASE, "--data.batch_size 512"),
    "compiled": (BASE, "--run.compile default"),
}
