"""Say, by each chart, what its curve should look like and when to worry (docs/collapse.md, docs/training.md)."""

HINGE = {
    "score": "With the hinge, D pushes real above +1 and fake below −1. Real stays above fake, and the two come closer "
    "as E and G learn. Worry if they cross and stay crossed: then D has lost; or if both stay beyond ±1: then D has "
    "won, and E and G learn little.",
    "score_z": "D sees the latent alone here: two curves close together near 0 are good, since then E's latents look "
    "like the prior's. Worry if they part and stay apart.",
    "loss_d": "Each score that is trained counts 2 where D tells nothing apart, and 0 where it is sure of every pair: "
    "6 for all three scores. It falls at first, then rises slowly towards that. Worry near 0: D has won.",
    "loss_eg": "The distance of real and fake scores, summed: it falls from a high start towards 0 as D is fooled. "
    "It is no measure of quality. Worry if it stays below 0, or grows without end.",
}
OTHER_FORM = {
    "score": "Real stays above fake, and the two come closer as E and G learn; the level of the scores depends on the "
    "loss. Worry if they cross and stay crossed: then D has lost.",
    "score_z": HINGE["score_z"],
    "loss_d": "Steady after the first stretch. Worry if it falls to a floor and stays there: D has won.",
    "loss_eg": "Steady after the first stretch; it is no measure of quality. Worry if it grows without end.",
}
GUIDES = {
    "gradient_penalty": "It falls at the beginning and stays small. Worry about spikes that come again and again.",
    "drift": "Small beside the loss. Worry if it grows: the scores drift away from 0.",
    "r1": "Small and steady. Worry if it grows: D becomes steep around the training images.",
    "loss_latent": "It falls: E finds the latent again that an image was drawn from. Worry if it stays at its start.",
    "confidence_d": "Near 1 D is sure that samples are none of the data's. Worry if it stays there.",
    "images_per_second": "Flat; a growing network slows down at each resolution. Worry if it falls without a reason: "
    "another program may use the machine, or the disk is slow.",
    "level": "It rises as the settings say: 0 is the smallest resolution, each whole step doubles it.",
    "score_gap": "Above 0, and smaller as E and G learn. Worry below −3 (below −1 with LSGAN): D has lost, and the run "
    "raises an alarm.",
    "score_gap_held_out": "The same as on training images. Worry if it stays far below that: D knows the training "
    "images by heart.",
    "sample_diversity": "Near 1: samples differ from each other as much as held-out images do. Worry if it falls; "
    "below 0.2 the samples are all alike, and the run raises an alarm.",
    "memorised": "Near 0.5, which is none. Worry above 0.75: D knows the training images by heart, and the run raises "
    "an alarm. More images or augmentations of D's inputs help.",
    "d_right_on_training_images": "Read it beside the held-out images' figure: the two go together. Worry if this one "
    "rises and that one falls.",
    "d_right_on_held_out_images": "As on training images. Worry if it falls while that one rises: D knows those by "
    "heart.",
    "d_right_on_samples": "It falls as samples get better, and may be near 0 for long: the level of D's scores moves. "
    "On its own it is no reason to worry.",
    "sigma0_generator": "It grows slowly. Worry if it doubles from one look to the next: weights explode, and the run "
    "raises an alarm.",
    "sigma0_discriminator": "It grows slowly, with some noise. Worry if it doubles from one look to the next: the run "
    "raises an alarm.",
    "posterior_stddev": "How unsure E is of an image's latent: it settles between 0 and 1. Worry near 0, where E "
    "ignores its noise (unless the posterior is deterministic), or near 1 with means near 0, where E ignores "
    "the image.",
    "posterior_mean_square": "How far E's latents spread over the images. With a normal prior it comes to about 1 "
    "together with the square of the standard deviation. Worry near 0: E says the same of every image.",
    "augment_p": "It settles where D no longer remembers its images. Worry if it climbs to its limit: the data are too "
    "few.",
    "augment_sign": "It settles at the target of the setting. Worry if it stays well above.",
    "top1_linear": "It rises, then levels off. Worry if it falls for long: keep the best checkpoint with --run.best.",
    "top1_knn": "It rises, then levels off. Worry if it falls for long.",
    "top1_1nn": "It rises, then levels off. Worry if it falls for long.",
    "fid": "Lower is better: it falls, then levels off. Worry if it rises for long: the pictures get worse, and "
    "--run.best fid keeps the best checkpoint.",
    "is": "It rises, then levels off. Worry if it falls for long.",
    "reconstruction_error_relative": "It falls below 1, which is another image in place of the right one. Worry if it "
    "stays near 1: G(E(x)) has nothing to do with x.",
}
SPECTRA = (
    "All begin at 1 and grow slowly; D's are noisier than G's. Worry if the largest of a layer doubles from one look "
    "to the next."
)


def guide(key: str, form: str = "hinge") -> str:
    """Return what the curve of a key of stats.jsonl should look like, and when to worry; "" for keys without a word.

    key: also "score" and "score_z", for the charts of the scores.  form: of the loss.
    """
    special = HINGE if form == "hinge" else OTHER_FORM
    found = [name for name in (*special, *GUIDES) if key == name or key.startswith(f"{name}_")]
    name = max(found, key=len, default="")
    return special.get(name) or GUIDES.get(name, "")
