"""The settings as a tree of dataclasses: the only place of defaults, each with its bounds, unit and reason.

The defaults are the paper's base (ResNet-50 encoder, 128 px, batch 2,048); a preset in `configs/` says what differs.
The text under a field is its line of `--help`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from bigbigan.config.bounds import AtLeastOne, BelowOne, Bounds, NotNegative, Positive, Share, Strength
from bigbigan.config.cross_checks import check

# Larger sizes or depths than these are typing errors, or attacks.
Size = Annotated[int, Bounds(least=1, most=65_536)]  # pixels, units or channels
SizeOrZero = Annotated[int, Bounds(least=0, most=65_536)]
Layers = Annotated[int, Bounds(least=2, most=1_000, even=True)]


@dataclass
class Model:
    """The networks. Flat, so that a release's config.json is this section."""

    image_size: Size = 128
    """Size of G's images and D's input in pixels: b·2^k with b = 3 … 7, from 8 to 512; to 1,024 by the family
    progressive, any size by the family mlp."""
    architecture: Literal["biggan", "biggan_deep"] = "biggan"
    """Blocks of G and F: BigGAN's; or BigGAN-deep's bottlenecks, twice as many.
    (BigGAN-deep has width 128 and 128 latents.)"""
    latent_dim: SizeOrZero = 120
    """Size of z. 0 chooses it: 20 per chunk (120 at 128 px), or 128 for biggan_deep."""
    classes: SizeOrZero = 0
    """Number of classes whose labels G and D see; 0: unconditional. E never sees labels."""
    prior: Literal[
        "normal", "uniform", "bernoulli", "signed_bernoulli", "categorical", "censored_normal", "sparse_normal",
        "normal_bernoulli", "variable_normal",
    ] = "normal"  # fmt: skip
    """Distribution p(z): N(0, I), U(-1, 1), or another of BigGAN's appendix E, see bigbigan/latents.py."""
    generator_width: Size = 96
    """Channels of G per multiplier of its channel table."""
    generator_attention: SizeOrZero = 64
    """Resolution in pixels after whose block G has self-attention; 0 for none."""
    embedding_dim: Size = 128
    """Size of the shared embedding that conditions G's batch norms."""
    shared_embedding: bool = True
    """False: each batch norm of G has its own gains and biases per class, as in SAGAN (not with biggan_deep)."""
    skip_z: bool = True
    """False: only G's first layer sees z, as in SAGAN (not with biggan_deep)."""
    discriminator_width: Size = 96
    """Channels of F per multiplier of its channel table."""
    discriminator_attention: SizeOrZero = 64
    """Resolution in pixels after whose block F has self-attention; 0 for none."""
    mlp_width: Size = 2048
    """Units of each layer of H and J; with family mlp, of every hidden layer."""
    mlp_layers: Layers = 8
    """Layers of H and of J, an even number."""
    encoder: str = "resnetv2_50"
    """E's backbone: resnetv2_18, _34, _50 (the paper's), _101, revnet50, or any timm model that yields features.
    none: train a GAN, without E, H and J.
    progressive: the trunk that grows, for family progressive. mlp: BiGAN's, for family mlp."""
    encoder_image_size: SizeOrZero = 0
    """E's input size in pixels, a multiple of image_size; 0: the same as image_size."""
    encoder_width: Annotated[float, Bounds(above=0, most=64, expected="a multiple above 0, of at most 64")] = 1.0
    """Factor of the channels of a resnetv2 or revnet50 encoder; 2 for the paper's "x2"."""
    encoder_blocks: Annotated[
        tuple[int, ...],
        Bounds(least=1, most=1_000, lengths=(0, 4), expected="four numbers of blocks from 1 to 1,000, or none"),
    ] = ()
    """Blocks in each of the four stages of a resnetv2 or revnet50 encoder; empty: its own, such as 3 4 6 3."""
    encoder_stem: Literal["auto", "imagenet", "stride2", "stride1"] = "auto"
    """First layer of a resnetv2 or revnet50 encoder:
    imagenet: 7x7/2 and max-pool; stride2: 7x7/2; stride1: 3x3/1.
    auto: these three from 128 px, from 64 px, and below."""
    encoder_padding: Literal["symmetric", "same"] = "symmetric"
    """Padding of the strided convolutions of a resnetv2 or revnet50 encoder; same: as TensorFlow's SAME."""
    encoder_pool_padding: Literal["symmetric", "same", "zeros"] = "symmetric"
    """Padding of the max-pool in its stem; same: as TensorFlow's SAME; zeros: symmetric, with zeros for pixels."""
    encoder_shortcut: Literal["preactivated", "raw"] = "preactivated"
    """What the 1x1 convolutions on the shortcuts of a resnetv2 encoder see: the block's input after its first batch
    norm and ReLU, or before."""
    encoder_last_relu: Literal["auto", "yes", "no"] = "auto"
    """A ReLU between the last batch norm of a resnetv2 or revnet50 encoder and the average pool.
    (auto: yes for resnetv2, no for revnet50, as in their published codes.)"""
    encoder_mlp_width: Size = 4096
    """Units of each layer of E's head, the MLP between the backbone and q(z|x)."""
    encoder_mlp_layers: Layers = 4
    """Layers of E's head, an even number."""
    posterior: Literal["gaussian", "log_sigma", "deterministic", "tanh", "sigmoid"] = "gaussian"
    """What E predicts of q(z|x):
    gaussian: mean and stddev, through a softplus; log_sigma: mean and log stddev (ALI).
    deterministic: z itself; for the uniform prior through a tanh, or a sigmoid stretched to (-1, 1) (BiGAN)."""
    joint: bool = True
    """False: D sees images alone, and E learns to predict z from G(z): BiGAN's latent regressors.
    (See loss.latent_weight.)"""
    family: Literal["biggan", "progressive", "mlp"] = "biggan"
    """Networks of G and F:
    biggan: BigGAN's.
    progressive: Progressive GAN's, which can grow; the settings marked "progressive:" are theirs.
    mlp: BiGAN's MLPs of mlp_width units, for images of any size."""
    grey: bool = False
    """G generates grey images, for data without colour. Of family mlp E and D see grey, too, as BiGAN's on MNIST do."""
    feature_base: Size = 8192
    """progressive: feature maps at the smallest resolution, halved with each doubling of the resolution."""
    feature_limit: Size = 512
    """progressive: upper limit of the feature maps at any resolution."""
    equalised: bool = True
    """progressive: equalised learning rates; False: He's initialisation."""
    generator_norm: Literal["pixel", "batch", "none"] = "pixel"
    """progressive: normalisation in G."""
    generator_slope: Annotated[float, Bounds(least=0, expected="0 or more")] = 0.2
    """progressive: slope of G's leaky ReLUs for negative inputs; 0 for ReLUs."""
    generator_tanh: bool = False
    """progressive: end G with a tanh."""
    normalise_latents: bool = True
    """progressive: scale z to the length √Z before G's first layer."""
    discriminator_norm: Literal["none", "layer", "spectral", "batch"] = "none"
    """progressive: normalisation in F; spectral: in H, J and the layers of the scores too.
    (mlp: batch as in BiGAN, or none as in ALI.)"""
    minibatch: Literal["stddev", "discrimination", "none"] = "stddev"
    """progressive: statistic of the minibatch that F's last layers see: stddev, or minibatch discrimination."""
    minibatch_group: SizeOrZero = 0
    """progressive: images over which the standard deviation is taken; 0: all of the minibatch, as in the paper."""
    encoder_norm: Literal["batch", "pixel", "layer", "none"] = "batch"
    """progressive: normalisation in E's trunk."""
    checkpointing: bool = False
    """Activation checkpointing: compute the blocks of G, F and E again in the backward pass, to save memory.
    (The same gradients in more time. revnet50 does so in any case; families progressive and mlp do not.)"""
    init_from: str = ""
    """Start from the weights of this release, checkpoint, run folder or hub id (fine-tuning)."""


@dataclass
class Loss:
    """The objective."""

    form: Literal["hinge", "joint_hinge", "logistic", "wgan_gp", "lsgan"] = "hinge"
    """hinge: one hinge loss per score (the paper). The others are of the sum of the scores:
    joint_hinge: its hinge loss; logistic: the cross-entropy of BiGAN and ALI.
    wgan_gp, lsgan: as in Progressive GAN. (A BigBiGAN with wgan_gp needs a D without spectral norm.)"""
    unary_x: bool = True
    """Keep the score s_x of the image alone."""
    unary_z: bool = True
    """Keep the score s_z of the latent alone."""
    latent_weight: Strength = 0.0
    """With model.joint False: weight in G's loss of E's error in predicting z.
    (0 for BiGAN's latent regressor, 0.25 for its joint one.)"""
    orthogonal: Annotated[float, Bounds(least=0, expected="0 or more")] = 0.0
    """Strength of BigGAN's orthogonal regularisation of G's weights (1e-4 there); 0: none, as in BigBiGAN."""
    r1: Strength = 0.0
    """Strength γ of the R1 penalty γ/2 · E‖∇D(x, E(x))‖² in D's loss; 0: none.
    (In BigGAN, 1 and more prevent collapse and cost quality.)"""
    r1_interval: AtLeastOne = 1
    """Apply R1 in every n-th D update, at n times the strength (lazy regularisation; 16 is usual)."""
    penalty: Annotated[float, Bounds(least=0)] = 10.0
    """wgan_gp: weight λ of the gradient penalty."""
    gradient_norm: Positive = 1.0
    """wgan_gp: norm γ that the penalty pulls D's gradient to (750 in Progressive GAN's CIFAR-10 run)."""
    drift: Annotated[float, Bounds(least=0)] = 0.001
    """wgan_gp: weight of the squared scores of encoder pairs, which keeps scores near 0."""


@dataclass
class Optim:
    """The updates."""

    name: str = "adam"
    """Optimiser: adam, or the name of any other of timm's, which takes those of these settings that it has."""
    generator_lr: Positive = 5e-5
    """Adam's learning rate for G (BigGAN)."""
    discriminator_lr: Positive = 2e-4
    """Adam's learning rate for D (BigGAN)."""
    encoder_lr: Positive = 5e-5
    """Adam's learning rate for E; the paper's better models use ten times G's."""
    betas: Annotated[tuple[float, float], Bounds(least=0, below=1, expected="two numbers in [0, 1)")] = (0.0, 0.999)
    """Adam's decay rates β₁ and β₂."""
    eps: Strength = 1e-8
    """Adam's epsilon."""
    lr_rampup: NotNegative = 0
    """Images over which all learning rates rise to their values (Progressive GAN: 40,000); 0: full rates at once."""
    weight_decay: Strength = 0.0
    """L2 penalty: this times the weights is added to all gradients (BiGAN)."""
    d_steps: AtLeastOne = 2
    """D updates before each joint E+G update, each on fresh images."""
    simultaneous: bool = False
    """Compute the gradients of D and of E and G on one batch before either optimiser steps (BiGAN, ALI).
    (Needs d_steps 1. False: D updates first, then E and G on fresh images.)"""
    ema_decay: BelowOne = 0.9999
    """Decay of the moving averages of E and G in each E+G update, whatever the batch size and the number of D updates.
    (0.9999: the paper's, a half-life of 6,931 updates. 0: no averages, the newest weights.)"""
    ema_rampup: Positive = 0.05
    """Upper limit of the half-life of these averages, as a share of the E+G updates made so far."""
    lower_after: NotNegative = 0
    """Images seen after which the learning rates of lower_networks are multiplied by lower_factor; 0: never."""
    lower_factor: BelowOne = 0.1
    """Factor of the learning rates after lower_after images."""
    lower_images: NotNegative = 0
    """Images over which the rates fall to that factor, exponentially (BiGAN); 0: at once."""
    lower_networks: Literal["all", "generator", "encoder", "discriminator", "encoder_generator"] = "all"
    """Networks whose learning rates are lowered. In BigGAN, lowering G's delayed collapse, lowering D's caused it."""
    freeze: Literal["none", "generator", "encoder", "discriminator", "encoder_generator"] = "none"
    """Networks whose parameters are not trained, for experiments."""
    dropout: BelowOne = 0.0
    """Dropout before D's last layers, as the share of features set to 0 (BigGAN tried 0.05 to 0.5)."""
    augment: Literal["none", "diffaugment", "ada"] = "none"
    """Transform the real and generated images that F sees, for few images.
    diffaugment: DiffAugment's transforms; ada: ADA's, of adapted probability."""
    augment_policy: str = ""
    """Comma-separated transforms; empty: all three.
    (color, translation, cutout of diffaugment; blit, geom, color of ada.)"""
    ada_target: Annotated[float, Bounds(above=-1, below=1, expected="a mean of signs, between -1 and 1")] = 0.6
    """Mean sign of D's scores of real images above which ADA's probability rises, and below which it falls."""
    ada_images: AtLeastOne = 500_000
    """Real images of D updates in which ADA's probability can rise from 0 to 1."""
    sigma_clamp: Strength = 0.0
    """Largest singular value that the weights of sigma_networks keep; 0: no limit.
    (Before each update W ← W − max(0, σ0 − σ_clamp) u0 v0ᵀ.)"""
    sigma_clamp_ratio: Strength = 0.0
    """The same with σ_clamp = this times the second largest singular value; 0: no limit."""
    sigma_networks: Literal["generator", "discriminator", "both"] = "generator"
    """Networks whose σ0 is limited (BigGAN: G)."""


@dataclass
class Data:
    """The images."""

    path: str = "digits"
    """"digits" (embedded), a folder of images, Parquet, Arrow or tar files, a saved `datasets` folder, a hub name."""
    subset: str = ""
    """Configuration of a data set that has several, such as 160px; or the folder of one of several data sets."""
    split: str = "train"
    """Split to train on; "./NAME": a folder, a table or tar, or a file that lists images, one a line.

    "all": the images of all splits or, where there are none, every folder as a class; "rest": the images outside any
    split's folder."""
    test_split: str = "test"
    """Split to evaluate on; "test" also matches a split called val; without any, `test_share` of the images is held
    out."""
    test_share: Annotated[float, Bounds(above=0, below=1, expected="a share above 0 and below 1")] = 0.1
    """Share of the images held out for evaluation if the data have no test split (of few images or patients,
    more or less than this share, but by split_rule permutation)."""
    split_rule: Literal["patient", "hash", "permutation"] = "patient"
    """How images are held out: patient: all images of a patient or scan together, where enough are named;
    hash: each by a hash of its path or bytes, so that it stays on its side while others are added;
    permutation: by a permutation of all images. Runs of earlier versions keep their rule."""
    image_column: str = ""
    """Column of the images in a table; when empty, `image` or another usual name."""
    label_column: str = ""
    """Column of the labels in a table, in metadata files, or in a .csv, .tsv or .txt file beside images; when empty,
    `label` or another usual name, and of files beside images only metadata files are read.

    Of files beside images also several columns, "A,B,C": the label is the one that holds 1 where the others hold 0."""
    group_column: str = ""
    """Column of a table, or of a file beside images, whose equal values are held out together, such as a place or a
    film; when empty, that of patients or scans."""
    value_range: tuple[float, ...] = ()
    """Values of black and white in grey pictures of more than 8 bits, such as 0 4095 for 12 bits in 16; floats need it.

    One number: that of white, above 0. None: the whole range of their bit depth, whatever they hold."""
    follow_links: bool = False
    """Also read images outside path that symbolic links point to; such links are refused otherwise."""
    batch_size: Annotated[int, Bounds(least=2)] = 2048
    """Images of one update, over all processes."""
    chunks: AtLeastOne = 1
    """Parts of a batch computed one after the other to save memory; batch norm uses the statistics of a part."""
    augment: Literal["tf_resnet", "resnet", "light", "none"] = "tf_resnet"
    """Random crop: tf_resnet: area 0.08-1 and aspect 3/4-4/3 as TensorFlow draws it (the paper); resnet:
    the same as torchvision draws it; light: area 0.5-1 and aspect 1; none: the centre square."""
    flip: bool = True
    """Flip half of the images horizontally, at random."""
    workers: Annotated[int, Bounds(least=-1)] = -1
    """Processes that decode images; -1: as many as the cores allow; 0: decode in the training process."""
    cache: Literal["auto", "device", "none"] = "auto"
    """Keep decoded images on the device:
    auto: if all have one size and fit in cache_gib; device: always; none: never."""
    cache_gib: Strength = 1.0
    """Largest size of a data set that auto keeps on the device, in GiB."""
    max_unreadable: Share = 0.01
    """Share of unreadable images above which the run ends; each process counts its own.
    Three are allowed at any share but 0, if they are at most a tenth."""


@dataclass
class Grow:
    """Growing from first_size up, one resolution at a time; for model.family progressive."""

    first_size: NotNegative = 0
    """Image size at the beginning, such as 4; 0: the networks have their full size from the start."""
    hold_images: NotNegative = 800_000
    """Images seen at a resolution before the next one is faded in."""
    fade_images: NotNegative = 800_000
    """Images seen while a resolution is faded in; 0: at once."""
    batch_sizes: tuple[int, ...] = ()
    """Images of one update at each resolution, from the first up; the last number is repeated.
    (Empty: data.batch_size at all.)"""
    reset_optimizers: bool = True
    """Reset Adam's moments at the beginning and at the end of each fade, as the published code does."""


@dataclass
class Run:
    """The run."""

    name: str = ""
    """Folder of the run under root; the preset's name if empty."""
    root: str = "runs"
    """Folder of all runs."""
    images: AtLeastOne = 3_072_000_000
    """Real images to see in all updates together (3.07 G: the paper's 500 K iterations of 3 x 2,048)."""
    seed: Annotated[int, Bounds(least=0), Bounds(below=2**63, expected="less than 2^63")] = 0
    """Decides initial weights, data order, crops and noise."""
    deterministic: bool = False
    """Use deterministic kernels only: a resumed run on one GPU is equal bit for bit; slower."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 if Accelerate was told so or the GPU has it, else float32.
    (Never bf16 on a CPU without instructions for it, where it is several times slower.)"""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    """Mode of torch.compile for the updates, refused if its gradients differ from eager ones.
    (reduce-overhead records CUDA graphs. Compiling takes minutes at the start, so it is for longer runs.)"""
    threads: Annotated[int, Bounds(least=0, most=1_024)] = 0
    """CPU threads of a process; 0: one or all of its cores, whichever a measurement at the start finds faster.
    (A run keeps the number that it began with, since another may change the last bit of a sum.)"""
    log_every: AtLeastOne = 200_000
    """Images between lines of stats.jsonl."""
    sample_every: AtLeastOne = 5_000_000
    """Images between grids of samples and reconstructions."""
    checkpoint_every: AtLeastOne = 5_000_000
    """Images between checkpoints."""
    keep_checkpoints: AtLeastOne = 3
    """Number of newest checkpoints to keep."""
    spectra_every: NotNegative = 5_000_000
    """Images between checks for collapse: spectra of G and D, scores of held-out images, diversity of samples.
    (0: no checks.)"""
    on_nonfinite: Literal["roll_back", "skip", "shrink", "stop"] = "roll_back"
    """When a loss, gradient or weight is not finite (no weight ever receives such a gradient):
    roll_back: return to the newest checkpoint and skip the images seen since.
    skip: leave the update out; shrink: leave it out and halve all learning rates; stop: end the run."""
    on_collapse: Literal["alarm", "stop", "roll_back"] = "alarm"
    """At signs of collapse:
    alarm: print it and keep the checkpoint from before; stop: also end the run.
    roll_back: return to that checkpoint with half of E's and G's learning rates."""
    recoveries: NotNegative = 3
    """How often a run continues after a non-finite value or a collapse; after that it ends with a report, status 1."""
    evaluate_every: NotNegative = 0
    """Images between evaluations (quick linear probe, k-NN, FID, reconstruction); 0: none before the end."""
    evaluate_images: Annotated[int, Bounds(least=20)] = 5_000
    """Upper limit of the training images, test images and samples, each, that such an evaluation uses."""
    best: str = ""
    """Keep the checkpoint that is best by this figure of the evaluations, such as top1_linear or fid; empty: none."""
    selection_share: BelowOne = 0.1
    """Share of the training images, at most 10,000, that a run with evaluate_every holds out: its evaluations and best
    look at these images, and the test split is kept for the figures at the end.
    (0: train on all of them; evaluations then look at test images, and best is refused.)"""
    statistics_images: Annotated[int, Bounds(least=2)] = 16_384
    """Images and latents for the sampling statistics of averaged E and G before each evaluation."""
    grid: AtLeastOne = 8
    """Rows and columns of the sample grids."""
    trackers: str = ""
    """Comma-separated trackers of Accelerate, such as tensorboard or wandb."""
    stop_after: Annotated[float, Bounds(least=0, expected="minutes, or 0 for never")] = 0.0
    """Minutes after which the run ends with a checkpoint, for schedulers that start it again; 0: never."""
    timeout: Annotated[float, Bounds(above=0, expected="minutes above 0")] = 30.0
    """Minutes that a process waits for the others before it ends.
    (Choose more than the longest evaluation and checkpoint take.)"""
    accept_changes: bool = False
    """Resume although hyper-parameters differ from the checkpoint's."""
    choose_settings: bool = False
    """Choose the image size, widths, batch, augmentation and length by the images and the device, as preset own does.
    (What flags or files set stays; see bigbigan/training/own_images.py. A run's config.yaml holds what was chosen.)"""
    probe: bool = True
    """At the end of the run, measure the quick parts of the probe, of at most 200,000 training images."""


@dataclass
class Config:
    """Train a BigBiGAN."""

    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    data: Data = field(default_factory=Data)
    grow: Grow = field(default_factory=Grow)
    run: Run = field(default_factory=Run)

    @property
    def batches(self) -> int:
        """Batches of real images that an iteration takes: one per D update, and one for E if it sees real images."""
        return self.optim.d_steps + (self.model.joint and self.model.encoder != "none" and not self.optim.simultaneous)

    def validate(self, processes: int = 1) -> None:
        """Raise ConfigError for a setting out of bounds, or for settings that contradict each other."""
        check(self, processes)
