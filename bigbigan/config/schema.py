"""The dataclass tree: the only place of defaults, each with its unit and reason.

The defaults are the paper's base (ResNet-50 encoder, 128 px, batch 2,048); a preset in `configs/` says what differs.
"""

from dataclasses import dataclass, field
from typing import Literal

from bigbigan.config.cross_checks import check


@dataclass
class Model:
    """The networks. Flat, so that a release's config.json is this section."""

    image_size: int = 128
    """Size of G's images and D's input in pixels: b·2^k with b = 3 … 7, from 8 to 512."""
    architecture: Literal["biggan", "biggan_deep"] = "biggan"
    """Blocks of G and F: BigGAN's, or BigGAN-deep's bottlenecks, twice as many (128 channels per multiplier, 128
    latents)."""
    latent_dim: int = 120
    """Size of z; 0 for 20 per slot of G (120 at 128 px), or 128 for biggan_deep."""
    classes: int = 0
    """0: unconditional. Else G and D see labels of that many classes; E never does."""
    prior: Literal[
        "normal", "uniform", "bernoulli", "signed_bernoulli", "categorical", "censored_normal", "sparse_normal",
        "normal_bernoulli", "variable_normal",
    ] = "normal"  # fmt: skip
    """p(z): N(0, I), U(-1, 1), or another latent of BigGAN's appendix E, see bigbigan/latents.py."""
    generator_width: int = 96
    """Channels per multiplier of G."""
    generator_attention: int = 64
    """Resolution after which G has self-attention; 0 for none."""
    embedding_dim: int = 128
    """Size of the shared embedding that conditions G's batch norms."""
    shared_embedding: bool = True
    """False: each batch norm of G has its own table of gains and biases by class, as in SAGAN (not with
    biggan_deep)."""
    skip_z: bool = True
    """False: only G's first layer sees z, as in SAGAN (not with biggan_deep)."""
    discriminator_width: int = 96
    """Channels per multiplier of F."""
    discriminator_attention: int = 64
    """Resolution after which F has self-attention; 0 for none."""
    mlp_width: int = 2048
    """Units of H and J; mlp: of every hidden layer."""
    mlp_layers: int = 8
    """Layers of H and J, an even number."""
    encoder: str = "resnetv2_50"
    """E's backbone: revnet50, or the name of a timm model: resnetv2_18, _34, _50, _101, or any that yields a feature
    vector.

    none: a GAN, without E, H and J. progressive: the trunk that grows. mlp: BiGAN's."""
    encoder_image_size: int = 0
    """E's input size, a multiple of image_size; 0 for the same size."""
    encoder_width: float = 1.0
    """Channel multiple of a resnetv2 or revnet50 encoder; 2 for the paper's "x2"."""
    encoder_blocks: tuple[int, ...] = ()
    """Blocks in each of the four stages of a resnetv2 or revnet50 encoder; none for its own, such as 3 4 6 3."""
    encoder_stem: Literal["auto", "imagenet", "stride2", "stride1"] = "auto"
    """First layer of a resnetv2 or revnet50 encoder: 7x7/2 and max-pool (from 128 px), 7x7/2 (from 64 px), 3x3/1
    (below)."""
    encoder_mlp_width: int = 4096
    """Units of E's head."""
    encoder_mlp_layers: int = 4
    """Layers of E's head, an even number."""
    posterior: Literal["gaussian", "log_sigma", "deterministic", "tanh"] = "gaussian"
    """q(z|x): mean and stddev, a softplus; mean and log stddev (ALI); or z directly; or tanh of it (for the uniform
    prior)."""
    joint: bool = True
    """False: D sees images alone, and E learns to tell z from G(z): BiGAN's latent regressors, see
    loss.latent_weight."""
    family: Literal["biggan", "progressive", "mlp"] = "biggan"
    """Networks: BigGAN's; or Progressive GAN's, which can grow, for G, F and E's trunk: see all that says progressive
    below; or BiGAN's MLPs of `mlp_width` units, for images of any size."""
    grey: bool = False
    """mlp: its networks see and draw grey images, as BiGAN's on MNIST do."""
    feature_base: int = 8192
    """progressive: maps at the bottom resolution, halved with each doubling ..."""
    feature_limit: int = 512
    """progressive: ... and at most this many."""
    equalised: bool = True
    """progressive: equalised learning rates; else He's initialisation."""
    generator_norm: Literal["pixel", "batch", "none"] = "pixel"
    """progressive: normalisation in G."""
    generator_slope: float = 0.2
    """progressive: of G's leaky ReLUs; 0 for ReLUs."""
    generator_tanh: bool = False
    """progressive: a tanh at G's end."""
    normalise_latents: bool = True
    """progressive: G brings z to the length √Z first."""
    discriminator_norm: Literal["none", "layer", "spectral", "batch"] = "none"
    """progressive: normalisation in F; spectral: in H, J and the scores' layers too. mlp: batch as in BiGAN, or none as
    in ALI."""
    minibatch: Literal["stddev", "discrimination", "none"] = "stddev"
    """progressive: what F's last layers are told of an image's minibatch."""
    minibatch_group: int = 0
    """progressive: images whose standard deviation is taken together; 0 for all (the paper)."""
    encoder_norm: Literal["batch", "pixel", "layer", "none"] = "batch"
    """progressive: normalisation in E's trunk."""
    init_from: str = ""
    """A release, checkpoint, run folder or hub id whose weights the run starts from (fine-tuning)."""


@dataclass
class Loss:
    """The objective."""

    form: Literal["hinge", "joint_hinge", "logistic", "wgan_gp", "lsgan"] = "hinge"
    """hinge per score (the paper), hinge of the summed score, BiGAN's and ALI's cross-entropy of the summed score,
    WGAN-GP or LSGAN of the summed score (Progressive GAN's)."""
    unary_x: bool = True
    """Keep the term s_x."""
    unary_z: bool = True
    """Keep the term s_z."""
    latent_weight: float = 0.0
    """model.joint False: weight of E's error in telling z in G's loss: 0 for BiGAN's latent regressor, 0.25 for the
    joint one."""
    orthogonal: float = 0.0
    """Strength of BigGAN's orthogonal regularisation of G's weights (1e-4 there); 0 for none, as BigBiGAN mentions
    none."""
    r1: float = 0.0
    """Strength γ of R1, γ/2 · E‖∇D(x, E(x))‖², in D's loss; 0 for none (BigGAN: 1 and more prevent collapse, and cost
    score)."""
    r1_interval: int = 1
    """D updates from one with R1 to the next, whose strength is multiplied by as many (lazy; 16 is usual)."""
    penalty: float = 10.0
    """wgan_gp: weight λ of the gradient penalty."""
    gradient_norm: float = 1.0
    """wgan_gp: γ, the norm that D's gradient is drawn to (750 for the published CIFAR-10 run)."""
    drift: float = 0.001
    """wgan_gp: weight of the squared scores of encoder pairs."""


@dataclass
class Optim:
    """The updates."""

    name: str = "adam"
    """The optimiser: adam, or the name of another one of timm's; the settings that it has are taken from these."""
    generator_lr: float = 5e-5
    """Adam's rate for G (BigGAN)."""
    discriminator_lr: float = 2e-4
    """Adam's rate for D (BigGAN)."""
    encoder_lr: float = 5e-5
    """Adam's rate for E; the paper's better models take ten times G's."""
    betas: tuple[float, float] = (0.0, 0.999)
    """Adam's decay rates."""
    eps: float = 1e-8
    """Adam's epsilon."""
    lr_rampup: int = 0
    """Images over which all rates rise to their values (Progressive GAN: 40,000); 0 for none."""
    weight_decay: float = 0.0
    """This times the weights is added to all gradients, as by an L2 penalty (BiGAN)."""
    d_steps: int = 2
    """D updates before each joint E+G update, each on fresh images."""
    simultaneous: bool = False
    """One update of D and one of E and G on the same images and latents, both from where the networks stand (BiGAN,
    ALI)."""
    ema_half_life: float = 14e6
    """Half-life of the averages of E and G, in images (the paper's 0.9999 at batch 2,048)."""
    ema_rampup: float = 0.05
    """The half-life is at most this share of the images seen."""
    lower_after: int = 0
    """Images seen from which on the rates of `lower_networks` are multiplied by `lower_factor`; 0 for never."""
    lower_factor: float = 0.1
    """What they are multiplied by."""
    lower_images: int = 0
    """Images over which they come there, exponentially (BiGAN); 0: at once."""
    lower_networks: Literal["all", "generator", "encoder", "discriminator", "encoder_generator"] = "all"
    """Whose rates; in BigGAN a lower rate of G alone put collapse off, and one of D brought it."""
    freeze: Literal["none", "generator", "encoder", "discriminator", "encoder_generator"] = "none"
    """Networks whose parameters stand still, for an experiment."""
    dropout: float = 0.0
    """Share of the features before D's last layers that is zero in training (BigGAN tried 0.05 to 0.5); 0 for none."""
    augment: Literal["none", "diffaugment", "ada"] = "none"
    """For few images: transforms of the images that F sees, real and generated; DiffAugment's, or ADA's, of adapted
    probability."""
    augment_policy: str = ""
    """Comma-separated parts: color, translation, cutout of diffaugment; blit, geom, color of ada; empty for all
    three."""
    ada_target: float = 0.6
    """Mean sign of D's scores of real images above which ADA's probability rises, and below which it falls."""
    ada_images: int = 500_000
    """Real images of D's updates in which that probability can go from 0 to 1."""
    sigma_clamp: float = 0.0
    """Largest σ0 of the weights of `sigma_networks`: W ← W − max(0, σ0 − σ_clamp) u0 v0ᵀ before an update; 0 for
    none."""
    sigma_clamp_ratio: float = 0.0
    """The same with σ_clamp = this times σ1, the second largest; 0 for none."""
    sigma_networks: Literal["generator", "discriminator", "both"] = "generator"
    """Networks whose σ0 is clamped (BigGAN: G's)."""


@dataclass
class Data:
    """The images."""

    path: str = "digits"
    """"digits" (embedded), a folder of images, Parquet or Arrow files, a saved `datasets` folder, or a hub name."""
    subset: str = ""
    """Configuration of a hub data set that has several, such as 160px."""
    split: str = "train"
    """Split to train on, where the data have splits."""
    test_split: str = "test"
    """Split to evaluate on; where the data have none, `test_share` of the images is held out."""
    test_share: float = 0.1
    """Share of images held out for evaluation when the data have no test split."""
    split_rule: Literal["hash", "permutation"] = "hash"
    """Which images are held out: those whose hash, of the path in the data set or of a table row's bytes, is low, so
    that an image stays on its side while others are added or deleted; or a permutation of all images, as in runs of
    earlier versions, which keep it when they resume."""
    image_column: str = ""
    """Column of the images in a table; found by itself when empty."""
    label_column: str = ""
    """Column of the labels in a table; found by itself when empty."""
    follow_links: bool = False
    """Take images that lie outside `path` behind symbolic links too; otherwise such a link is refused."""
    batch_size: int = 2048
    """Images of one update over all processes."""
    chunks: int = 1
    """Parts a batch is computed in, one after the other, to save memory; batch statistics are those of a part."""
    augment: Literal["resnet", "light", "none"] = "resnet"
    """Random crop of area 0.08-1 and aspect 3/4-4/3; of area 0.5-1 and aspect 1; or the centre square."""
    flip: bool = True
    """Random horizontal flip."""
    workers: int = -1
    """Processes that decode; -1 for as many as the cores allow, 0 for none."""
    cache: Literal["auto", "device", "none"] = "auto"
    """Keep all images decoded on the device: if they have one size and take less than `cache_gib`; always; never."""
    cache_gib: float = 1.0
    """Largest size of a data set that `auto` keeps on the device, in GiB."""
    max_unreadable: float = 0.01
    """Share of unreadable images above which the run ends; each process counts those it met."""


@dataclass
class Grow:
    """Growing, for model.family progressive: from `first_size` up, a resolution at a time."""

    first_size: int = 0
    """Image size at the beginning, such as 4; 0: the networks have their full size from the start."""
    hold_images: int = 800_000
    """Images seen at a resolution before the next one is faded in."""
    fade_images: int = 800_000
    """Images seen while a resolution is faded in; 0: at once."""
    batch_sizes: tuple[int, ...] = ()
    """Images of one update at each resolution from the first up, the last one repeated; none for data.batch_size."""
    reset_optimizers: bool = True
    """Forget Adam's averages at the beginning and at the end of each fade, as the published code does."""


@dataclass
class Run:
    """The run."""

    name: str = ""
    """Folder of the run under `root`; the preset's name when empty."""
    root: str = "runs"
    """Where runs live."""
    images: int = 3_072_000_000
    """Real images to see in all updates together (3.07 G: the paper's 500 K iterations of 3 x 2,048)."""
    seed: int = 0
    """Decides initial weights, data order, crops and noise."""
    deterministic: bool = False
    """Only deterministic kernels: a resumed run on one GPU is equal bit for bit; slower."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 if `accelerate launch` was told so or the GPU has it, else float32."""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    """A mode of torch.compile for the updates, which is refused where its gradients differ from eager ones;
    reduce-overhead records CUDA graphs. Minutes of compiling at the start, so for longer runs."""
    threads: int = 0
    """CPU threads of a process; 0 to share the machine's cores among its processes."""
    log_every: int = 200_000
    """Images between lines of stats.jsonl."""
    sample_every: int = 5_000_000
    """Images between grids of samples and reconstructions."""
    checkpoint_every: int = 5_000_000
    """Images between checkpoints."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints to keep."""
    spectra_every: int = 5_000_000
    """Images between looks for collapse: spectra of G and D, scores on held-out images, diversity of samples; 0 for
    none."""
    on_nonfinite: Literal["roll_back", "skip", "shrink", "stop"] = "roll_back"
    """When a loss, gradient or weight is not finite: go back to the newest checkpoint and pass over the images from
    there on; leave the update out; leave it out and halve all rates; or end. Such a gradient never reaches a weight."""
    on_collapse: Literal["alarm", "stop", "roll_back"] = "alarm"
    """At signs of collapse: say so and keep the checkpoint from before; also end; or go back to it, with half E's and
    G's rates."""
    recoveries: int = 3
    """Times that a run goes on after a non-finite value or goes back after a collapse; then it ends with a report,
    status 1."""
    evaluate_every: int = 0
    """Images between evaluations (a quick linear probe, k-NN, FID, reconstruction); 0 for none before the end."""
    evaluate_images: int = 5_000
    """Training images, test images and samples that such an evaluation looks at, each at most."""
    best: str = ""
    """Keep the best checkpoint by this figure of the evaluations, such as top1_linear or fid; empty for none."""
    statistics_images: int = 16_384
    """Images and latents for the sampling statistics of averaged E and G before each evaluation."""
    grid: int = 8
    """Rows and columns of the sample grids."""
    trackers: str = ""
    """Comma-separated trackers of Accelerate, such as tensorboard or wandb."""
    stop_after: float = 0.0
    """Minutes from the start after which the run ends with a checkpoint, to be started again by a scheduler; 0 for
    never."""
    timeout: float = 30.0
    """Minutes that a process waits for the others before it ends; longer than the longest evaluation and checkpoint
    take."""
    accept_changes: bool = False
    """Resume although hyper-parameters differ from the checkpoint's."""
    probe: bool = True
    """At the end of the run, probe the encoder if the data have labels and at most 200,000 training images."""


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
        """Batches of real images that an iteration takes: one for each D update, and one for E if it sees real
        images."""
        return self.optim.d_steps + (self.model.joint and self.model.encoder != "none" and not self.optim.simultaneous)

    def validate(self, processes: int = 1) -> None:
        """Raise ConfigError for settings that contradict each other, naming the flags."""
        check(self, processes)
