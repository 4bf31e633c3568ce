"""Read the graph and the signatures of a TensorFlow SavedModel (`saved_model.pb`) without TensorFlow."""

import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bigbigan.errors import ConversionError
from bigbigan.files import printable
from bigbigan.release.tfhub.checkpoint import TYPES
from bigbigan.release.tfhub.wire import Value, floats, mapping, message, numbers, shape, text

NUMPY = {torch.float32: "<f4", torch.float64: "<f8", torch.int32: "<i4", torch.int64: "<i8", torch.float16: "<f2",
         torch.uint8: "u1", torch.bool: "?"}  # fmt: skip


@dataclass(frozen=True)
class Node:
    """One operation: its name, its kind, the tensors it takes ("name" or "name:output"), and its attributes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Signature:
    """What a module offers under a name: input name → tensor, output name → tensor."""

    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class SavedModel:
    """The graph for inference: nodes by name, and signatures by name."""

    nodes: dict[str, Node]
    signatures: dict[str, Signature]


def read_saved_model(path: Path) -> SavedModel:
    """Read the graph without tags, which a hub module has for inference; else the only one. Raises ConversionError."""
    if not path.is_file():
        raise ConversionError(f"{printable(path)}: expected the graph of a hub module, found no such file")
    try:
        graphs = [message(graph) for graph in message(path.read_bytes())[2]]
        if not graphs:
            raise ConversionError("expected a SavedModel, found a file without a graph")
        tags = [[tag.decode() for tag in message(graph[1][-1])[4]] if graph[1] else [] for graph in graphs]
        chosen = [graph for graph, own in zip(graphs, tags, strict=True) if not own] or graphs
        if len(chosen) != 1:
            raise ConversionError(f"expected one graph without tags, found {len(graphs)} graphs with the tags {tags}")
        return _meta_graph(chosen[0])
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error) as error:
        reason = error if isinstance(error, ConversionError) else f"expected a SavedModel, found another file ({error})"
        raise ConversionError(f"{printable(path)}: {reason}") from None


def _meta_graph(graph: dict[int, list[Value]]) -> SavedModel:
    """Return the nodes and signatures of a MetaGraphDef."""
    definition = message(graph[2][-1])
    library = message(definition[2][-1])[1] if definition[2] else []
    functions = {text(message(message(f)[1][-1])[1]): message(f) for f in library}
    nodes = {node.name: node for node in _inlined([_node(n) for n in definition[1]], functions)}
    return SavedModel(nodes, {name: _signature(value) for name, value in mapping(graph[5]).items()})


def _signature(data: bytes) -> Signature:
    """Return a SignatureDef."""
    sides = [{k: text(message(v)[1]) for k, v in mapping(message(data)[i]).items()} for i in (1, 2)]
    return Signature(*sides)


def _node(data: bytes) -> Node:
    """Return a NodeDef. Inputs of control, which carry no tensor, are left out."""
    found = message(data)
    inputs = tuple(name.decode() for name in found[3] if not name.startswith(b"^"))
    attributes = {name: _attribute(value) for name, value in mapping(found[5]).items()}
    return Node(text(found[1]), text(found[2]), inputs, attributes)


def _attribute(data: bytes) -> object:
    """Return an AttrValue as a Python value; a tensor as a Tensor, a function as its name, a type as its number."""
    found = message(data)
    for number, read in _READERS.items():
        if found[number]:
            return read(found[number])
    return None


def _list(values: list[Value]) -> list:
    found = message(values[-1])
    return next((_LISTS[n](found[n]) for n in _LISTS if found[n]), [])


def _tensor(values: list[Value]) -> Tensor | None:
    """Return a TensorProto; None for strings, which no network computes with."""
    found = message(values[-1])
    dtype = TYPES.get((numbers(found[1]) or [0])[-1])
    if dtype is None:
        return None
    size = shape(found[2][-1]) if found[2] else ()
    count = int(np.prod(size, dtype=np.int64))
    if found[4] and found[4][-1]:
        raw = np.frombuffer(found[4][-1], np.uint8).copy()
        return torch.from_numpy(raw).view(dtype).reshape(size)
    given = floats(found[5]) or floats(found[6], "d") or numbers(found[7] or found[10] or found[11] or found[13])
    if found[13]:  # half precision, as the bits of integers
        return torch.tensor(given, dtype=torch.int32).to(torch.int16).view(dtype).expand(count).reshape(size).clone()
    given = given or [0]  # an absent value is 0; the last one is repeated
    return torch.tensor(given + [given[-1]] * (count - len(given)), dtype=dtype)[:count].reshape(size)


_READERS = {
    1: _list,
    2: lambda v: v[-1].decode(errors="replace"),
    3: lambda v: numbers(v)[-1],
    4: lambda v: floats(v)[-1],
    5: lambda v: bool(v[-1]),
    6: lambda v: numbers(v)[-1],
    7: lambda v: shape(v[-1]),
    8: _tensor,
    10: lambda v: text(message(v[-1])[1]),
}
_LISTS = {2: lambda v: [s.decode(errors="replace") for s in v], 3: numbers, 4: floats, 5: numbers, 6: numbers}


def _inlined(nodes: list[Node], functions: dict[str, dict[int, list[Value]]], depth: int = 0) -> list[Node]:
    """Return the nodes with every call of a function of the graph's library replaced by its body."""
    if depth > 20:
        raise ConversionError("expected functions that end, found more than 20 inside one another")
    found = []
    for node in nodes:
        name = node.attributes.get("f") if node.op in ("PartitionedCall", "StatefulPartitionedCall") else node.op
        found += [node] if name not in functions else _inlined(_body(node, functions[name]), functions, depth + 1)
    return found


def _body(call: Node, function: dict[int, list[Value]]) -> list[Node]:
    """Return the nodes of a call: the function's, named under the call's, and the call as an IdentityN of the results.

    In a function "node:output:i" stands for output i of that name, which is the node's output i in the operations that
    networks are made of.
    """
    signature = message(function[1][-1])
    arguments = {text(message(a)[1]): given for a, given in zip(signature[2], call.inputs, strict=True)}

    def outside(tensor: str) -> str:
        name, _, rest = tensor.partition(":")
        return arguments.get(name) or f"{call.name}/{name}:{rest.rpartition(':')[2] or 0}"

    nodes = [_node(n) for n in function[3]]
    body = [replace(n, name=f"{call.name}/{n.name}", inputs=tuple(map(outside, n.inputs))) for n in nodes]
    results = {text(message(r)[1]): text(message(r)[2]) for r in function[4]}
    names = [text(message(a)[1]) for a in signature[3]]
    return [*body, Node(call.name, "IdentityN", tuple(outside(results[name]) for name in names))]
