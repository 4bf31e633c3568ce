"""Build small BigBiGAN hub modules in TensorFlow: `python tf_module.py FOLDER NAME ...`, one of each name in VARIANTS.

Written as a BigBiGAN in TensorFlow 1 could be, not as the reader expects it: its scopes and names are its own, and the
variants write batch norms, padding, averages and pooling in several ways. Besides the module it writes expected.npz:
inputs and outputs of each signature. It imports nothing of this library, so any Python that has TensorFlow runs it.
"""

import os
import sys
from dataclasses import dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """Sizes of the networks; `painter` and `judge` are the channels of G's maps and of F's."""

    image: int = 16
    chunk: int = 2  # of latents, one for the first layer and one for each block
    constant: int = 5
    painter: tuple[int, ...] = (8, 8, 8)
    painter_attention: int = 0  # the block after which it stands
    judge: tuple[int, ...] = (8, 8, 8)
    units: int = 16
    depth: int = 2  # residual blocks of H and of J
    head: int = 12
    head_depth: int = 1
    blocks: tuple[int, ...] = (1, 2, 1, 1)
    channels: int = 8  # of E's first stage
    stem: int = 8
    narrowest: int = 8

    @property
    def latents(self) -> int:
        return self.chunk * len(self.painter)


def published(width: int) -> Sizes:
    """The published depth and resolution; 96 is the published width too."""
    units, channels = width * 64 // 3, width * 8 // 3
    return Sizes(
        image=128, chunk=20, constant=128, painter=tuple(width * m for m in (16, 16, 8, 4, 2, 1)), painter_attention=3,
        judge=tuple(width * m for m in (1, 2, 4, 8, 16, 16)), units=units, depth=4, head=2 * units, head_depth=2,
        blocks=(3, 4, 6, 3), channels=channels, stem=channels // 4,
    )  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """How a module is written; each field is a way that BigBiGAN's own code may have taken."""

    sizes: Sizes = Sizes()
    trunk: str = "resnet"
    norm: str = "library"  # tf.nn.batch_normalization; "fused"; "plain": arithmetic; "pow": the same by a power
    padding: str = "same"  # "fixed": symmetric by an operation of its own, also before the max-pool
    pool: str = "same"
    shortcut: str = "preactivated"
    last_relu: bool = False
    resource: bool = False
    twins: bool = True  # of each trainable variable there is an average, which inference reads
    counter: bool = False  # accumulated statistics are sums, divided by how many there are
    conditional: bool = False  # whether statistics were accumulated is asked by tf.cond
    features_first: bool = True
    two_heads: bool = False
    pooled_by_slices: bool = False
    upsampling: str = "resize"  # "tile"
    eps: float = 1e-4
    function: bool = False  # the generator is a function that is called


LEFT_OUT = {("generate", "upsampled"), ("encode", "default"), ("encode", "z_sample")}  # of expected.npz
VARIANTS = {
    "small": Variant(),
    "resnet": Variant(),
    "revnet": Variant(trunk="revnet", norm="fused", padding="fixed", pool="fixed", counter=True, two_heads=True),
    "raw": Variant(
        shortcut="raw", norm="plain", padding="fixed", pool="same", last_relu=True, resource=True, twins=False,
        counter=True, conditional=True, features_first=False, pooled_by_slices=True, upsampling="tile", eps=1e-3,
    ),  # fmt: skip
    "revnet_plain": Variant(trunk="revnet", norm="pow", last_relu=True, counter=True, resource=True, function=True),
    "leaky": Variant(),
    "batch_statistics": Variant(),
    # For trying by hand: the published depth and resolution, at a quarter of the width (70 MB) and at the width (1 GB).
    "quarter": Variant(sizes=published(24), twins=False),
    "published": Variant(sizes=published(96), twins=False),
}  # fmt: skip


def build(folder: str, name: str) -> None:
    """Write the module `name` to folder/name, and its inputs and outputs to folder/name/expected.npz."""
    import tensorflow.compat.v1 as tf

    path = os.path.join(folder, name)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(7)
        tf.disable_control_flow_v2()  # tf.cond as TensorFlow 1 wrote it
        signatures = Builder(tf, VARIANTS[name], name).signatures()
        session.run(tf.global_variables_initializer())
        builder = tf.saved_model.Builder(path)
        saver = tf.train.Saver(tf.global_variables(), sharded=False)
        builder.add_meta_graph_and_variables(session, [], signature_def_map=signatures, saver=saver)
        if name != "small":
            builder.add_meta_graph(["train"], signature_def_map=signatures)
        builder.save()
        with open(os.path.join(path, "tfhub_module.pb"), "wb") as file:
            file.write(b"\x08\x03")
        random, found = np.random.default_rng(0), {}
        for key, signature in signatures.items():
            if key == "default":
                continue
            sizes = {i: [2 if d.size < 0 else d.size for d in t.tensor_shape.dim] for i, t in signature.inputs.items()}
            inputs = {i: (random.integers(-32, 33, size) / 32).astype("f4") for i, size in sizes.items()}
            outputs = session.run(
                {o: info.name for o, info in signature.outputs.items() if (key, o) not in LEFT_OUT},
                {signature.inputs[i].name: value for i, value in inputs.items()},
            )
            found |= {f"{key}.{side}.{i}": v for side, vs in (("in", inputs), ("out", outputs)) for i, v in vs.items()}
        np.savez_compressed(os.path.join(path, "expected.npz"), **found)


class Builder:
    """The graph of one module."""

    def __init__(self, tf, variant: Variant, name: str):
        self.tf, self.v, self.s, self.name = tf, variant, variant.sizes, name

    # --- variables ---

    def variable(self, name, shape, scale=1.0, mean=0.0, low=None, trained=True):
        tf = self.tf
        values = tf.random_uniform_initializer(low, low + scale) if low is not None else (
            tf.random_normal_initializer(mean, scale))  # fmt: skip
        averaged = trained and self.v.twins
        first = tf.zeros_initializer() if averaged else values
        made = tf.get_variable(name, shape, initializer=first, use_resource=self.v.resource)
        if averaged:
            return tf.get_variable(f"{name}/shadow", shape, initializer=values, use_resource=self.v.resource)
        return made

    def normalised(self, w):
        """Spectral norm by one step of the power iteration from a stored vector."""
        tf = self.tf
        flat = tf.reshape(w, [-1, w.shape[-1]])
        left = self.variable("left", [1, flat.shape[1]], trained=False)
        self.variable("second", [1, flat.shape[1]], trained=False)  # logged only
        right = tf.nn.l2_normalize(tf.matmul(left, flat, transpose_b=True), epsilon=1e-12)
        left = tf.stop_gradient(tf.nn.l2_normalize(tf.matmul(right, flat), epsilon=1e-12))
        sigma = tf.matmul(tf.matmul(tf.stop_gradient(right), flat), left, transpose_b=True)[0, 0]
        return w / sigma

    # --- layers ---

    def conv(self, name, x, filters, size, stride=1, bias=True, spectral=True):
        tf = self.tf
        with tf.variable_scope(name):
            inputs = x.shape[-1]
            w = self.variable("taps", [size, size, inputs, filters], (size * size * inputs) ** -0.5)
            w = self.normalised(w) if spectral else w
            padding = "SAME"
            if stride > 1 and self.v.padding == "fixed":
                before, padding = size // 2, "VALID"
                x = tf.pad(x, [[0, 0], [before, size - 1 - before], [before, size - 1 - before], [0, 0]])
            x = tf.nn.conv2d(x, w, [1, stride, stride, 1], padding)
            return tf.nn.bias_add(x, self.variable("shift", [filters], 0.1)) if bias else x

    def dense(self, name, x, units, bias=True, spectral=True):
        tf = self.tf
        with tf.variable_scope(name):
            w = self.variable("map", [x.shape[-1], units], x.shape[-1] ** -0.5)
            x = tf.matmul(x, self.normalised(w) if spectral else w)
            return x + self.variable("shift", [units], 0.1) if bias else x

    def statistics(self, channels, rank):
        tf = self.tf
        shape = [1] * (rank - 1) + [channels] if self.v.norm != "fused" else [channels]
        mean = self.variable("centre", shape, 0.3, trained=False)
        var = self.variable("spread", shape, 1.0, low=0.5, trained=False)
        if self.v.counter:
            count = self.variable("number", [], 0.0, 4.0, trained=False)
            if self.v.conditional:
                other = tf.zeros(shape)
                var = tf.cond(count > 0.5, lambda: var / count, lambda: other + 1.0)
                mean = tf.cond(count < 0.5, lambda: other, lambda: mean / count)
            else:
                mean, var = mean / count, var / count
        return tf.identity(mean), var

    def norm(self, name, x, condition=None, affine=True):
        """Batch norm; with a condition its gain is 1 + a map of it."""
        tf, channels, rank = self.tf, x.shape[-1], len(x.shape)
        with tf.variable_scope(name):
            mean, var = self.statistics(channels, rank)
            gain = offset = None
            if condition is not None:
                gain = tf.reshape(1.0 + self.dense("g", condition, channels, bias=False), [-1, 1, 1, channels])
                offset = self.dense("o", condition, channels, bias=False)[:, tf.newaxis, tf.newaxis, :]
            elif affine:
                shape = mean.shape.as_list()
                gain, offset = self.variable("gain", shape, 1.0, low=0.5), self.variable("offset", shape, 0.3)
            return self.arithmetic(x, mean, var, gain, offset, condition is not None)

    def arithmetic(self, x, mean, var, gain, offset, conditional):
        tf, eps = self.tf, self.v.eps
        if self.v.norm == "library":
            return tf.nn.batch_normalization(x, mean, var, offset, gain, eps)
        if self.v.norm == "fused" and len(x.shape) == 4:
            ones, zeros = tf.ones(mean.shape), tf.zeros(mean.shape)
            own = (ones, zeros) if conditional or gain is None else (gain, offset)
            x = tf.nn.fused_batch_norm(x, *own, mean, var, epsilon=eps, is_training=False)[0]
            return x * gain + offset if conditional else x
        x = (x - mean) / tf.sqrt(var + eps) if self.v.norm == "plain" else (x - mean) * tf.pow(var + eps, -0.5)
        return x if gain is None else offset + gain * x

    def halve(self, x):
        tf = self.tf
        if self.v.pooled_by_slices:
            return tf.add_n([x[:, i::2, j::2, :] for i in (0, 1) for j in (0, 1)]) / 4.0
        return tf.nn.avg_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "VALID")

    def double(self, x):
        tf, (height, width, channels) = self.tf, x.shape.as_list()[1:]
        if self.v.upsampling == "resize":
            return tf.image.resize_nearest_neighbor(x, [2 * height, 2 * width])
        x = tf.tile(x[:, :, tf.newaxis, :, tf.newaxis, :], [1, 1, 2, 1, 2, 1])
        return tf.reshape(x, [-1, 2 * height, 2 * width, channels])

    def attention(self, name, x):
        tf, channels, places = self.tf, x.shape[-1], x.shape[1] * x.shape[2]
        with tf.variable_scope(name):
            a = tf.reshape(self.conv("a", x, channels // 8, 1, bias=False), [-1, places, channels // 8])
            b = tf.nn.max_pool(self.conv("b", x, channels // 8, 1, bias=False), 2, 2, "VALID")
            c = tf.nn.max_pool(self.conv("c", x, channels // 2, 1, bias=False), 2, 2, "VALID")
            b, c = tf.reshape(b, [-1, places // 4, channels // 8]), tf.reshape(c, [-1, places // 4, channels // 2])
            mixed = tf.matmul(tf.nn.softmax(tf.matmul(a, b, transpose_b=True)), c)
            mixed = tf.reshape(mixed, [-1, *x.shape.as_list()[1:3], channels // 2])
            return self.variable("amount", [], 0.0, 0.7) * self.conv("d", mixed, channels, 1, bias=False) + x

    def mlp(self, name, x, units, blocks, spectral):
        tf = self.tf
        with tf.variable_scope(name):
            for i in range(blocks):
                h = self.dense(f"{i}/down", x if i == 0 else tf.nn.relu(x), units, spectral=spectral)
                h = self.dense(f"{i}/up", tf.nn.relu(h), units, spectral=spectral)
                same = x.shape[-1] == units
                x = h + (x if same else self.dense(f"{i}/side", x, units, spectral=spectral))
            return tf.nn.relu(x) if self.name != "leaky" else tf.nn.leaky_relu(x)

    # --- networks ---

    def generator(self, z):
        tf, channels, chunk = self.tf, self.s.painter, self.s.chunk
        bottom = self.s.image // 2 ** (len(channels) - 1)
        with tf.variable_scope("painter"):
            constant = self.variable("colour", [1, self.s.constant])
            x = self.dense("canvas", z[:, :chunk], bottom * bottom * channels[0])
            x = tf.reshape(x, [-1, bottom, bottom, channels[0]])
            for i, width in enumerate(channels[1:]):
                own = z[:, chunk * (i + 1) : chunk * (i + 2)]
                condition = tf.concat([own, tf.tile(constant, [tf.shape(z)[0], 1])], 1)
                with tf.variable_scope(f"stroke{i}"):
                    h = self.double(tf.nn.relu(self.norm("n", x, condition)))
                    h = self.conv("p", h, width, 3)
                    h = self.conv("q", tf.nn.relu(self.norm("m", h, condition)), width, 3)
                    x = h + self.conv("r", self.double(x), width, 1)
                x = self.attention("glance", x) if i == self.s.painter_attention else x
            return tf.tanh(self.conv("frame", tf.nn.relu(self.norm("varnish", x)), 3, 3))

    def discriminator(self, x, z):
        tf, channels, s = self.tf, self.s.judge, self.s
        with tf.variable_scope("judge"):
            for i, width in enumerate(channels):
                with tf.variable_scope(f"look{i}"):
                    h = self.conv("p", x if i == 0 else tf.nn.relu(x), width, 3)
                    h = self.conv("q", tf.nn.relu(h), width, 3)
                    if i < len(channels) - 1:
                        h, x = self.halve(h), self.halve(self.conv("r", x, width, 1))
                    x = x + h
                x = self.attention("glance", x) if i == 0 else x
            f = tf.reduce_sum(tf.nn.relu(x), [1, 2])
            h = self.mlp("hear", z, s.units, s.depth, True)
            j = self.mlp("weigh", tf.concat([f, h] if self.v.features_first else [h, f], 1), s.units, s.depth, True)
            scores = [tf.squeeze(self.dense(f"verdict{i}", t, 1), 1) for i, t in enumerate((f, h, j))]
            return dict(zip(("score_x", "score_z", "score_xz"), scores, strict=True))

    def stem_pool(self, x):
        tf = self.tf
        if self.v.pool == "fixed":
            return tf.nn.max_pool(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
        return tf.nn.max_pool(x, 3, 2, "SAME")

    def bottleneck(self, x, inner, outer, stride=1):
        """The branch of a block, and its first activation."""
        tf = self.tf
        first = tf.nn.relu(self.norm("n1", x))
        h = self.conv("c1", first, inner, 1, bias=False, spectral=False)
        h = self.conv("c2", tf.nn.relu(self.norm("n2", h)), inner, 3, stride, bias=False, spectral=False)
        return self.conv("c3", tf.nn.relu(self.norm("n3", h)), outer, 1, bias=False, spectral=False), first

    def resnet(self, x):
        tf = self.tf
        for s, blocks in enumerate(self.s.blocks):
            outer = self.s.channels * 2**s
            inner = max(self.s.narrowest, outer // 4)
            for b in range(blocks):
                stride = 2 if s and b == 0 else 1
                with tf.variable_scope(f"floor{s}/room{b}"):
                    h, first = self.bottleneck(x, inner, outer, stride)
                    if b == 0:
                        side = x if self.v.shortcut == "raw" else first
                        x = self.conv("door", side, outer, 1, stride, bias=False, spectral=False)
                    x = x + h
        return x

    def revnet(self, x):
        tf = self.tf
        for s, blocks in enumerate(self.s.blocks):
            channels = self.s.channels * 2**s
            if s:
                x = tf.pad(self.halve(x), [[0, 0], [0, 0], [0, 0], [channels // 4] * 2])
            for b in range(blocks):
                with tf.variable_scope(f"floor{s}/room{b}"):
                    x1, x2 = tf.split(x, 2, axis=3)
                    h, _ = self.bottleneck(x2, channels // 8, channels // 2)
                    x = tf.concat([x2, x1 + h], 3)
        return x

    def encoder(self, x):
        tf = self.tf
        with tf.variable_scope("reader"):
            x = self.stem_pool(self.conv("eye", x, self.s.stem, 7, 2, bias=False, spectral=False))
            x = self.norm("lens", self.resnet(x) if self.v.trunk == "resnet" else self.revnet(x))
            feature = tf.reduce_mean(tf.nn.relu(x) if self.v.last_relu else x, [1, 2])
            h = self.mlp("mind", feature, self.s.head, self.s.head_depth, False)
            if self.v.two_heads:
                mean, raw = (self.dense(name, h, self.s.latents, spectral=False) for name in ("guess", "doubt"))
            else:
                mean, raw = tf.split(self.dense("guess", h, 2 * self.s.latents, spectral=False), 2, axis=1)
            deviation = tf.nn.softplus(raw)
            if self.name == "batch_statistics":
                own = tf.nn.batch_normalization(feature, *tf.nn.moments(feature, [0]), None, None, 1e-4)
            else:
                own = self.norm("level", feature, affine=False)
            sample = mean + deviation * tf.random_normal(tf.shape(mean))
            crelu = tf.concat([tf.nn.relu(own), tf.nn.relu(-own)], 1)
            return {"default": sample, "z_mean": mean, "z_stdev": deviation, "z_sample": sample,
                    "avepool_feat": feature, "bn_crelu_feat": crelu}  # fmt: skip

    def signatures(self):
        tf = self.tf
        z = tf.placeholder(tf.float32, [None, self.s.latents], "generate_z")
        image = self.called(z) if self.v.function else self.generator(z)
        upsampled = tf.image.resize_nearest_neighbor(image, [2 * self.s.image, 2 * self.s.image])
        x = tf.placeholder(tf.float32, [None, 2 * self.s.image, 2 * self.s.image, 3], "encode_x")
        encoded = self.encoder(x)
        pair = {"x": tf.placeholder(tf.float32, [None, self.s.image, self.s.image, 3], "discriminate_x"),
                "z": tf.placeholder(tf.float32, [None, self.s.latents], "discriminate_z")}  # fmt: skip
        given = {"generate": ({"z": z}, {"default": image, "upsampled": upsampled}), "encode": ({"x": x}, encoded),
                 "discriminate": (pair, self.discriminator(**pair)),
                 "default": ({"default": x}, {"default": encoded["default"]})}  # fmt: skip
        return {key: tf.saved_model.predict_signature_def(*sides) for key, sides in given.items()}

    def called(self, z):
        """The last step of the generator as a function of the graph's library."""
        tf = self.tf

        @tf.function
        def step(x):
            return tf.identity(x) * 1.0

        return tf.reshape(step(self.generator(z)), [-1, self.s.image, self.s.image, 3])


if __name__ == "__main__":
    for one in sys.argv[2:]:
        build(sys.argv[1], one)
