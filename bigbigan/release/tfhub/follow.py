"""Follow a module's graph backwards from its outputs and recognise the parts of BigBiGAN's G, E and D in it.

Only the order and the kinds of layers are recognised here. Whether everything between them (activations, pools,
upsampling, reshapes) is as in our networks is decided by comparing the numbers of the two, in `convert`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bigbigan.errors import ConversionError
from bigbigan.networks import discriminator, generator
from bigbigan.networks.revnet import EPS as REVNET_EPS
from bigbigan.release.tfhub.interpreter import VALUE, split
from bigbigan.release.tfhub.layers import Layers, Part
from bigbigan.release.tfhub.operations import same_padding
from bigbigan.release.tfhub.saved_model import Signature
from bigbigan.release.tfhub.weights import Weights

GENERATOR_EPS = FEATURE_EPS = 1e-4  # of our batch norms in G, and of E's feature_norm
RESNET_EPS = 1e-5  # timm's
BOTTLENECK = ("conv", "norm", "conv", "norm", "conv", "norm")  # from the block's end to its beginning


@dataclass
class Block:
    """A residual block: the layers of its branch from the end to the beginning, its shortcut's, and its input."""

    layers: list[Part]
    shortcut: Part | None
    base: Part
    tensor: str


class Follower:
    """What the three networks need: the parts of the graph, and where to put their numbers."""

    def __init__(self, layers: Layers, weights: Weights):
        self.layers, self.weights = layers, weights

    def descend(self, tensor: str, kinds: Sequence[str]) -> tuple[list[Part], Part] | None:
        """Return the layers of these kinds behind a tensor and what they begin from; None for others."""
        found = []
        for kind in kinds:
            part = self.layers.behind(tensor)
            if part.kind != kind:
                return None
            found.append(part)
            tensor = part.inputs[0]
        return found, self.layers.behind(tensor)

    def block(self, add: Part, kinds: Sequence[str], name: str) -> Block:
        """Return a residual block whose branch has these kinds of layers. Raises ConversionError if it is none."""
        possible = []
        for branch, other in (add.inputs, add.inputs[::-1]):
            found = self.descend(branch, kinds)
            if found is None:
                continue
            layers, base = found
            end = self.layers.behind(other)
            if end is base:
                possible.append(Block(layers, None, base, add.tensor))
            elif end.kind == kinds[0]:
                start = self.layers.behind(end.inputs[0])
                if start is base or (start is layers[-1] and start.kind == "norm"):
                    possible.append(Block(layers, end, base, add.tensor))
        if len(possible) != 1:
            raise ConversionError(
                f"{name}: expected a residual block of {', '.join(reversed(kinds))} at {split(add.tensor)[0]}, found "
                f"{'another' if not possible else 'two ways to read it'}"
            )
        return possible[0]

    def layer(self, name: str, part: Part, **how) -> None:
        self.weights.layer(name, part, **how)

    def expect(self, part: Part, kind: str, what: str) -> Part:
        """Return the part if it is of this kind. Raises ConversionError."""
        if part.kind != kind:
            found = f"{part.kind} {part.op}".strip()
            raise ConversionError(f"{what}: expected {kind} at {split(part.tensor)[0]}, found {found}")
        return part

    def attention(self, add: Part, name: str) -> Part | None:
        """Put self-attention, x + γ o(...), under this name and return what it begins from; None if it is none."""
        for scaled, x in (add.inputs, add.inputs[::-1]):
            scale = self.layers.part(scaled)
            if scale.kind != "scale":
                continue
            output = self.expect(self.layers.behind(scale.inputs[0]), "conv", name)
            query, key, value = self._projections(output, name)
            for part, own in ((output, "output"), (query, "query"), (key, "key"), (value, "value")):
                self.layer(f"{name}.{own}", part, bias=False, spectral=True)
            self.weights.tensors[f"{name}.gamma"] = self.weights.graph.constant(scale.weight).flatten()[0].float()
            self.weights.claim(self.weights.graph.leaves(scale.weight), f"{name}.gamma")
            self.weights.places[name] = add.tensor
            base = self.layers.behind(x)
            begins = {id(self.layers.behind(part.inputs[0])) for part in (query, key, value)}
            if begins != {id(base)}:
                raise ConversionError(f"{name}: expected its three convolutions to begin from one map, found others")
            return base
        return None

    def _projections(self, output: Part, name: str) -> tuple[Part, Part, Part]:
        """Return the convolutions θ, φ and g of self-attention; φ and g are pooled."""
        found: dict[str, tuple[Part, bool]] = {}
        stack = [(output.inputs[0], False)]
        while stack:
            tensor, pooled = stack.pop()
            part = self.layers.part(tensor)
            if part.kind == "conv":
                found[part.tensor] = (part, pooled)
            elif part.kind != "input":
                stack += [(i, pooled or part.op == "MaxPool") for i in part.inputs]
        plain = [part for part, pooled in found.values() if not pooled]
        pooled = sorted((p for p, was in found.values() if was), key=lambda p: self.layers.shape(p.tensor)[-1])
        if len(plain) != 1 or len(pooled) != 2:
            raise ConversionError(
                f"{name}: expected one convolution and two pooled ones in self-attention, found {len(plain)} and "
                f"{len(pooled)}"
            )
        return plain[0], pooled[0], pooled[1]

    def mlp(self, name: str, tensor: str, base: Part, *, spectral: bool, columns=None) -> tuple[int, int]:
        """Put a residual MLP under this name and return (layers, width); `base` is what it begins from.

        columns: order of the inputs, for a concatenation in another order than ours.
        """
        blocks, part = [], self.layers.behind(tensor)
        while part is not base:
            block = self.block(self.expect(part, "add", name), ("linear", "linear"), name)
            blocks.append(block)
            part = block.base
        if not blocks:
            raise ConversionError(f"{name}: expected residual blocks of linear layers, found none")
        for i, block in enumerate(reversed(blocks)):
            order = columns if i == 0 else None
            named = {"linear2": block.layers[0], "linear1": block.layers[1], "shortcut": block.shortcut}
            for own, part in named.items():
                if part is not None:
                    how = {"columns": order} if own != "linear2" else {}
                    self.layer(f"{name}.blocks.{i}.{own}", part, bias=True, spectral=spectral, **how)
        self.weights.places[name] = tensor
        return 2 * len(blocks), self.layers.shape(blocks[0].tensor)[-1]


def follow_generator(follower: Follower, signature: Signature) -> dict:
    """Put G's numbers in place, and return its settings."""
    layers, weights, name = follower.layers, follower.weights, "generator"
    image, z = signature.outputs["default"], signature.inputs["z"]
    last = follower.expect(layers.behind(image), "conv", name)
    norm = follower.expect(layers.behind(last.inputs[0]), "norm", name)
    blocks, attention, part = [], [], layers.behind(norm.inputs[0])
    while part.kind == "add":
        begun = follower.attention(part, f"{name}.attention")
        if begun is not None:
            attention.append(layers.shape(part.tensor)[1])
            part = begun
            continue
        blocks.append(follower.block(part, ("conv", "norm", "conv", "norm"), name))
        part = blocks[-1].base
    blocks.reverse()
    first = follower.expect(part, "linear", f"{name}.linear")
    size, latents = layers.shape(image)[1], layers.shape(z)[-1]
    _check_depth(len(blocks), attention, generator.MULTIPLIERS, name)
    bottom = size // 2 ** len(blocks)
    channels = layers.shape(first.tensor)[-1] // bottom**2
    rows = torch.arange(channels * bottom**2).view(bottom, bottom, channels).permute(2, 0, 1).flatten()
    follower.layer(f"{name}.linear", first, bias=True, spectral=True, rows=rows)
    columns = _conditions(follower, blocks, first, z, f"{name}.embedding")
    for i, block in enumerate(blocks):
        _generator_block(follower, f"{name}.blocks.{i}", block, columns)
    weights.norm(f"{name}.norm", norm, GENERATOR_EPS)
    follower.layer(f"{name}.conv", last, bias=True, spectral=True)
    weights.places[name] = image
    return {
        "image_size": size,
        "latent_dim": latents,
        "generator_width": layers.shape(norm.tensor)[-1] // generator.MULTIPLIERS[len(blocks)][-1],
        "generator_attention": attention[0] if attention else 0,
        "embedding_dim": weights.tensors[f"{name}.embedding.weight"].shape[1],
    }


def _check_depth(blocks: int, attention: list[int], known: dict, name: str) -> None:
    if blocks not in known or len(attention) > 1:
        raise ConversionError(
            f"{name}: expected {min(known)} to {max(known)} residual blocks and one self-attention at most, found "
            f"{blocks} and {len(attention)}"
        )


def _generator_block(follower: Follower, name: str, block: Block, columns: dict[str, torch.Tensor]) -> None:
    """Put a block of G under its name."""
    conv2, norm2, conv1, norm1 = block.layers
    for own, part in (("conv1", conv1), ("conv2", conv2), ("shortcut", block.shortcut)):
        if part is None:
            raise ConversionError(f"{name}: expected a convolution on the shortcut, found none")
        follower.layer(f"{name}.{own}", part, bias=True, spectral=True)
    for own, part in (("norm1", norm1), ("norm2", norm2)):
        follower.weights.conditional_norm(f"{name}.{own}", part.norm, GENERATOR_EPS)
        for role, tensor in (("gain", part.norm.gain), ("bias", part.norm.offset)):
            linear = follower.layers.part(tensor)
            order = columns[follower.layers.graph.canonical(linear.inputs[0])]
            follower.layer(f"{name}.{own}.{role}", linear, bias=False, spectral=True, columns=order)
    follower.weights.places[name] = block.tensor


def _conditions(
    follower: Follower, blocks: list[Block], first: Part, z: str, name: str
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Put the learned constant under this name, and return for each condition our order of its columns.

    A condition's columns are latents, or constants; which ones is found by their values for three random z.
    """
    layers, graph = follower.layers, follower.layers.graph
    norms = [(i, part) for i, block in enumerate(blocks) for part in (block.layers[3], block.layers[1])]
    if any(not part.norm.gain for _, part in norms):
        raise ConversionError(f"{name}: expected conditional batch norms in the generator's blocks, found plain ones")
    linears = [(i, layers.part(t)) for i, part in norms for t in (part.norm.gain, part.norm.offset)]
    sources = {graph.canonical(linear.inputs[0]): i for i, linear in linears}
    latents = torch.randn(3, layers.shape(z)[-1], dtype=VALUE, generator=torch.Generator().manual_seed(0))
    values = graph.run([graph.canonical(first.inputs[0]), *sources], {z: latents})
    chunk, remainder = divmod(latents.shape[1] - values[0].shape[1], len(blocks))
    expected = latents[:, : values[0].shape[1]]
    if not torch.equal(values[0], expected) or remainder:
        raise ConversionError(f"{name}: expected z split into a first part and equal ones, found another split")
    constant, orders = None, {}
    for (tensor, i), value in zip(sources.items(), values[1:], strict=True):
        start = expected.shape[1] + i * chunk
        same = (value[:, :, None] == latents[:, None, start : start + chunk]).all(0)  # (columns, chunk)
        fixed = [c for c in range(value.shape[1]) if not same[c].any()]
        own = value[:, fixed]
        constant = own[0] if constant is None else constant
        if not same.any(0).all() or not torch.equal(own, constant.expand(own.shape)):
            raise ConversionError(
                f"{split(tensor)[0]}: expected latents {start} to {start + chunk - 1} and one learned constant as the "
                f"condition of block {i}, found another"
            )
        orders[tensor] = torch.cat([same.int().argmax(0), torch.tensor(fixed, dtype=torch.long)])
    follower.weights.tensors[f"{name}.weight"] = constant[None].float()
    follower.weights.claim([v for t in sources for v in graph.leaves(t)], name)
    return orders


def follow_discriminator(follower: Follower, signature: Signature) -> dict:
    """Put the numbers of F, H, J and the scores in place, and return D's settings."""
    layers, weights = follower.layers, follower.weights
    image, z = (layers.behind(signature.inputs[i]) for i in ("x", "z"))
    heads = {}
    for name in ("score_x", "score_z", "score_xz"):
        place = f"discriminator.{name}"
        heads[name] = follower.expect(layers.behind(signature.outputs[name]), "linear", place)
        follower.layer(place, heads[name], bias=True, spectral=True)
    features, latent, joined = (layers.graph.canonical(heads[n].inputs[0]) for n in ("score_x", "score_z", "score_xz"))
    settings = _image_trunk(follower, features, image)
    depth, width = follower.mlp("discriminator.h", latent, z, spectral=True)
    base = layers.behind(joined)
    while base.kind == "add":
        base = follower.block(base, ("linear", "linear"), "discriminator.j").base
    pieces = [layers.behind(i) for i in follower.expect(base, "concat", "discriminator.j").inputs]
    ends = [layers.behind(t) for t in (features, latent)]
    if len(pieces) != 2 or {id(p) for p in pieces} != {id(e) for e in ends}:
        raise ConversionError("discriminator.j: expected the features of F and of H, joined, found something else")
    sizes = [layers.shape(i)[-1] for i in base.inputs]
    order = torch.arange(sum(sizes)) if pieces[0] is ends[0] else torch.arange(sum(sizes)).roll(-sizes[0])
    j_depth, j_width = follower.mlp("discriminator.j", joined, base, spectral=True, columns=order)
    if (depth, width) != (j_depth, j_width):
        raise ConversionError(
            f"discriminator: expected H and J of the same size, found {depth} layers of {width} units and {j_depth} of "
            f"{j_width}"
        )
    weights.places |= {"discriminator.f": features}
    return settings | {"mlp_width": width, "mlp_layers": depth}


def _image_trunk(follower: Follower, features: str, image: Part) -> dict:
    """Put F's numbers in place, and return its settings."""
    layers, name = follower.layers, "discriminator.f"
    blocks, attention, part = [], [], layers.behind(features)
    while part is not image:
        follower.expect(part, "add", name)
        begun = follower.attention(part, f"{name}.attention")
        if begun is not None:
            attention.append(layers.shape(part.tensor)[1])
            part = begun
            continue
        blocks.append(follower.block(part, ("conv", "conv"), name))
        part = blocks[-1].base
    blocks.reverse()
    size = layers.shape(image.tensor)[1]
    doublings = next((k for k, table in discriminator.MULTIPLIERS.items() if 4 <= size / 2**k < 8), 0)
    expected = len(discriminator.MULTIPLIERS.get(doublings, ()))
    if len(blocks) != expected or len(attention) > 1:
        raise ConversionError(
            f"{name}: expected {expected} residual blocks for {size} px and one self-attention at most, found "
            f"{len(blocks)} and {len(attention)}"
        )
    for i, block in enumerate(blocks):
        named = {"conv2": block.layers[0], "conv1": block.layers[1], "shortcut": block.shortcut}
        for own, part in named.items():
            if part is not None:
                follower.layer(f"{name}.blocks.{i}.{own}", part, bias=True, spectral=True)
        follower.weights.places[f"{name}.blocks.{i}"] = block.tensor
    width = layers.shape(blocks[0].tensor)[-1] // discriminator.MULTIPLIERS[doublings][0]
    return {"discriminator_width": width, "discriminator_attention": attention[0] if attention else 0}


def follow_encoder(follower: Follower, signature: Signature) -> dict:
    """Put E's numbers in place, and return its settings."""
    layers, weights, out = follower.layers, follower.weights, signature.outputs
    passed: list[Part] = []
    last = follower.expect(layers.behind(out["avepool_feat"], passed), "norm", "encoder.trunk.norm")
    weights.norm("encoder.trunk.norm", last, RESNET_EPS)
    rectified = any(part.kind == "relu" for part in passed)
    end = layers.behind(last.inputs[0])
    trunk = _revnet if end.kind == "concat" else _resnet
    settings = trunk(follower, end, layers.behind(signature.inputs["x"]))
    usual = settings["encoder"] != "revnet50"
    settings["encoder_last_relu"] = "auto" if rectified == usual else "yes" if rectified else "no"
    settings |= _posterior(follower, signature, last)
    crelu = follower.expect(layers.behind(out["bn_crelu_feat"]), "concat", "encoder.feature_norm")
    norms = [layers.behind(i) for i in crelu.inputs]
    norm = follower.expect(norms[0], "norm", "encoder.feature_norm")
    if any(n is not norm for n in norms) or layers.behind(norm.inputs[0]) is not last:
        raise ConversionError("encoder.feature_norm: expected one batch norm of avepool_feat, found another graph")
    weights.norm("encoder.feature_norm", norm, FEATURE_EPS, affine=False)
    weights.places["encoder.trunk"] = out["avepool_feat"]
    features = layers.shape(out["avepool_feat"])[-1]
    return settings | {
        "encoder_image_size": layers.shape(signature.inputs["x"])[1],
        "encoder_width": features / 2048,
        "posterior": "gaussian",
    }


def _posterior(follower: Follower, signature: Signature, features: Part) -> dict:
    """Put the MLP and the last linear layer of E's head in place, and return their settings."""
    layers = follower.layers
    pieces = []
    for output in ("z_mean", "z_stdev"):
        part = layers.behind(signature.outputs[output])
        if part.kind == "slice":
            pieces.append((layers.behind(part.inputs[0]), part.start, part.stop))
        else:
            pieces.append((part, 0, layers.shape(part.tensor)[-1]))
    (linear, first, middle), (other, start, stop) = pieces
    follower.expect(linear, "linear", "encoder.linear")
    rows = torch.cat([torch.arange(first, middle), torch.arange(start, stop)])
    if other is linear:
        follower.layer("encoder.linear", linear, bias=True, spectral=False, rows=rows)
    else:  # two layers
        follower.expect(other, "linear", "encoder.linear")
        if layers.graph.canonical(linear.inputs[0]) != layers.graph.canonical(other.inputs[0]):
            raise ConversionError("encoder.linear: expected mean and stddev from the same features, found others")
        halves = []
        for name, part in (("encoder.linear mean", linear), ("encoder.linear stddev", other)):
            follower.layer(name, part, bias=True, spectral=False)
            halves.append([follower.weights.tensors.pop(f"{name}.{own}") for own in ("weight", "bias")])
        weight, bias = (torch.cat(both) for both in zip(*halves, strict=True))
        follower.weights.tensors |= {"encoder.linear.weight": weight, "encoder.linear.bias": bias}
    depth, width = follower.mlp("encoder.mlp", linear.inputs[0], features, spectral=False)
    return {"encoder_mlp_width": width, "encoder_mlp_layers": depth}


def _bottleneck(follower: Follower, name: str, layers: list[Part], eps: float) -> None:
    """Put the six layers of a bottleneck under our names."""
    for i, part in enumerate(reversed(layers)):
        own = f"{name}.{'conv' if part.kind == 'conv' else 'norm'}{i // 2 + 1}"
        if part.kind == "conv":
            follower.layer(own, part, bias=False, spectral=False)
        else:
            follower.weights.norm(own, part, eps)


def _resnet(follower: Follower, end: Part, image: Part) -> dict:
    """Put a ResNet-v2's numbers in place, and return its settings; a block with a projection begins a stage."""
    stages: list[list[Block]] = [[]]
    part = end
    while part.kind == "add":
        block = follower.block(part, BOTTLENECK, "encoder.trunk")
        stages[0].insert(0, block)
        if block.shortcut is not None:
            stages.insert(0, [])
        part = block.base
    if stages.pop(0) or not stages:
        raise ConversionError("encoder.trunk: expected a projection in the first block of a ResNet, found none")
    shortcuts = set()
    for s, blocks in enumerate(stages):
        for b, block in enumerate(blocks):
            name = f"encoder.trunk.stages.{s}.blocks.{b}"
            _bottleneck(follower, name, block.layers, RESNET_EPS)
            follower.weights.places[name] = block.tensor
            if block.shortcut is not None:
                follower.layer(f"{name}.downsample.conv", block.shortcut, bias=False, spectral=False)
                raw = follower.layers.behind(block.shortcut.inputs[0]) is block.base
                shortcuts.add("raw" if raw else "preactivated")
    if len(shortcuts) != 1:
        raise ConversionError("encoder.trunk: expected all projections to see raw inputs, or none, found some")
    strided = [block.layers[2] for blocks in stages for block in blocks]
    begin = stages[0][0].layers[-1].inputs[0]
    return _stem(follower, part, begin, strided, image) | _blocks("resnetv2_50", [len(s) for s in stages]) | {
        "encoder_shortcut": shortcuts.pop()
    }  # fmt: skip


def _revnet(follower: Follower, end: Part, image: Part) -> dict:
    """Put a RevNet's numbers in place, and return its settings; a stage begins where one map is cut in two."""
    layers, stages, ends, strided = follower.layers, [], [], []
    part = end
    while part.kind == "concat":
        stages.insert(0, [])
        ends.insert(0, part.tensor)
        first, second = (layers.part(i) for i in part.inputs)
        while second.kind == "add":  # (x₁, x₂) → (x₂, x₁ + f(x₂))
            found, before = _reversed(follower, first, second)
            stages[0].insert(0, found)
            first, second = before, first
        halves = [first, second]
        width = sum(layers.shape(h.tensor)[-1] for h in halves)
        cuts = [(h.kind, h.start, h.stop) for h in halves]
        if cuts != [("slice", 0, width // 2), ("slice", width // 2, width)] or halves[0].inputs != halves[1].inputs:
            raise ConversionError(
                f"encoder.trunk: expected the halves of one map at {split(first.tensor)[0]}, found another"
            )
        begin = first.inputs[0]
        part = layers.behind(begin)
    for s, blocks in enumerate(stages):
        follower.weights.places[f"encoder.trunk.stages.{s}"] = ends[s]
        for b, found in enumerate(blocks):
            _bottleneck(follower, f"encoder.trunk.stages.{s}.blocks.{b}", found, REVNET_EPS)
            strided.append(found[2])
    return _stem(follower, part, begin, strided, image) | _blocks("revnet50", [len(s) for s in stages])


def _reversed(follower: Follower, x2: Part, y: Part) -> tuple[list[Part], Part]:
    """Return the layers of f and x₁ of y = x₁ + f(x₂)."""
    for branch, other in (y.inputs, y.inputs[::-1]):
        found = follower.descend(branch, BOTTLENECK)
        if found is not None and follower.layers.part(found[0][-1].inputs[0]) is x2:
            return found[0], follower.layers.part(other)
    raise ConversionError(
        f"encoder.trunk: expected x1 + f(x2) with f(x2) of three convolutions at {split(y.tensor)[0]}, found another"
    )


def _blocks(name: str, counts: list[int]) -> dict:
    if len(counts) != 4:
        raise ConversionError(f"encoder.trunk: expected four stages, found {len(counts)}")
    return {"encoder": name, "encoder_blocks": () if counts == [3, 4, 6, 3] else tuple(counts)}


def _stem(follower: Follower, conv: Part, begin: str, convs: list[Part], image: Part) -> dict:
    """Put the first convolution in place, and return which stem it is, and how strided layers pad."""
    layers = follower.layers
    follower.expect(conv, "conv", "encoder.trunk.stem.conv")
    if layers.behind(conv.inputs[0]) is not image:
        raise ConversionError("encoder.trunk.stem: expected one convolution on the image, found another layer below it")
    follower.layer("encoder.trunk.stem.conv", conv, bias=False, spectral=False)
    follower.weights.places["encoder.trunk.stem"] = begin
    passed: list[Part] = []
    layers.behind(begin, passed)
    pools = [p for p in passed if p.op == "MaxPool"]
    if len(pools) > 1:
        raise ConversionError(f"encoder.trunk.stem: expected one max-pool at most, found {len(pools)}")
    convs = [c for c in (conv, *convs) if _stride(follower, c) > 1]
    stem = "imagenet" if pools else "stride2" if conv in convs else "stride1"
    found = {"encoder_stem": stem, "encoder_padding": _padding(follower, convs, False)}
    if pools:
        found["encoder_pool_padding"] = _padding(follower, pools, True)
    return found


def _stride(follower: Follower, part: Part) -> int:
    return follower.layers.graph.node(part.core or part.tensor).attributes["strides"][1]


def _padding(follower: Follower, parts: list[Part], pool: bool) -> str:
    """Return the setting that describes how these strided layers pad. Raises ConversionError for any other padding."""
    possible = ["symmetric", "same"]
    zeros = False
    for part in parts:
        node = follower.layers.graph.node(part.core or part.tensor)
        x, pixels, size = follower.layers.padding(part)
        zeros |= pool and x != part.inputs[0]  # padded by an operation of its own
        kernel = int(
            node.attributes["ksize"][1] if pool else math.isqrt(math.prod(
                follower.layers.graph.constant(part.weight).shape[:2]))
        )  # fmt: skip
        meant = {"symmetric": (kernel // 2,) * 4, "same": same_padding(size, kernel, _stride(follower, part)) * 2}
        possible = [name for name in possible if meant[name] == pixels]
        if not possible:
            raise ConversionError(
                f"{node.name}: expected symmetric padding or SAME, and the same in all strided layers; found "
                f"{pixels} pixels (left, right, top, bottom) for a kernel of {kernel}"
            )
    if zeros and possible[0] != "symmetric":
        raise ConversionError("encoder.trunk.stem: expected a max-pool padded by zeros on all sides, found another")
    return "zeros" if zeros else possible[0]
