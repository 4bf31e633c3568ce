"""Compute tensors of a TensorFlow graph with torch, from a checkpoint's variables and given inputs."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from bigbigan.errors import ConversionError
from bigbigan.release.tfhub.checkpoint import TYPES, Checkpoint
from bigbigan.release.tfhub.operations import OPERATIONS, PASSING, RANDOM
from bigbigan.release.tfhub.saved_model import Node

VARIABLES = {"VariableV2", "Variable", "VarHandleOp"}
VALUE = torch.float64  # everything is computed in double precision, so that rounding hides no difference


def split(tensor: str) -> tuple[str, int]:
    """Return the node's name and the number of its output that a tensor's name means."""
    name, _, output = tensor.partition(":")
    return name, int(output or 0)


def key(tensor: str) -> str:
    """Return a tensor's name with the number of its output."""
    return "{}:{}".format(*split(tensor))


class Interpreter:
    """A graph with its variables. Raises ConversionError for what it cannot find or compute."""

    def __init__(self, nodes: dict[str, Node], checkpoint: Checkpoint):
        self.nodes, self.checkpoint = dict(nodes), checkpoint
        self._variables: dict[str, Tensor] = {}
        self._varying = self._data_dependent()
        if any(node.op == "Merge" for node in nodes.values()):
            self._take_branches()
            self._varying = self._data_dependent()

    def node(self, tensor: str) -> Node:
        name = split(tensor)[0]
        if name not in self.nodes:
            raise ConversionError(f"expected the operation {name} in the graph, found none of this name")
        return self.nodes[name]

    def canonical(self, tensor: str) -> str:
        """Return the tensor that this one passes on unchanged, as "name:output"."""
        while True:
            node, (_, output) = self.node(tensor), split(tensor)
            floats = node.op == "Cast" and node.attributes.get("SrcT") in (1, 14, 19) and \
                node.attributes.get("DstT") in (1, 14, 19)  # fmt: skip
            if node.op in PASSING or floats:
                tensor = node.inputs[0]
            elif node.op == "IdentityN":
                tensor = node.inputs[output]
            else:
                return key(tensor)

    def varies(self, tensor: str) -> bool:
        """Return whether a tensor depends on the inputs of the graph, or on random numbers."""
        return split(tensor)[0] in self._varying

    def variable(self, node: Node) -> str:
        """Return the name under which the checkpoint has the variable of a node."""
        return str(node.attributes.get("shared_name") or node.name)

    def read(self, name: str) -> Tensor:
        """Return a variable; a floating-point one in double precision."""
        if name not in self._variables:
            self._variables[name] = self.checkpoint[name]
        value = self._variables[name]
        return value.to(VALUE) if value.is_floating_point() else value

    def ancestors(self, tensor: str) -> list[Node]:
        """Return the nodes that a tensor is computed from, itself the last, each after its inputs."""
        return self._order([tensor], set())

    def leaves(self, *tensors: str) -> list[str]:
        """Return the names of the variables that tensors are computed from."""
        found = {self.variable(node): None for node in self._order(tensors, set()) if node.op in VARIABLES}
        return list(found)

    def constant(self, tensor: str) -> Tensor:
        """Return a tensor that depends on variables and constants alone."""
        if self.varies(tensor):
            raise ConversionError(f"{split(tensor)[0]}: expected a tensor of variables alone, found one of inputs")
        return self.run([tensor], {})[0]

    def run(self, fetches: list[str], feeds: dict[str, Tensor], each: Callable | None = None) -> list[Tensor]:
        """Return the tensors asked for.

        feeds: values of tensors, of inputs or any others; nothing behind them is computed.
        each: is called with the name and the value of every computed tensor that varies with the inputs.
        """
        values = {key(tensor): value for tensor, value in feeds.items()}
        order, wanted = self._order(fetches, set(values)), [key(tensor) for tensor in fetches]
        uses = Counter(key(i) for node in order for i in node.inputs) + Counter(wanted)
        for node in order:
            inputs = [values[key(i)] for i in node.inputs]
            for output, value in enumerate(self._compute(node, inputs)):
                name = f"{node.name}:{output}"
                value = values.setdefault(name, value)
                if each is not None and node.name in self._varying:
                    each(name, value)
            for used in map(key, node.inputs):
                uses[used] -= 1
                if uses[used] == 0:
                    values.pop(used, None)
        return [values[name] for name in wanted]

    def _compute(self, node: Node, inputs: list[Tensor]) -> Iterable[Tensor]:
        if node.op == "Const":
            value = node.attributes.get("value")
            if not isinstance(value, Tensor):
                raise ConversionError(f"{node.name}: expected a constant of numbers, found another")
            return [value.to(VALUE) if value.is_floating_point() else value]
        if node.op in VARIABLES:
            return [self._checked(node)]
        if node.op in RANDOM:
            return [torch.zeros([int(size) for size in inputs[0].tolist()], dtype=VALUE)]  # so a sample is the mean
        if node.op == "Placeholder":
            raise ConversionError(f"{node.name}: expected a value of this input, found none")
        if node.op not in OPERATIONS:
            raise ConversionError(f"{node.name}: expected an operation of a BigBiGAN's inference, found {node.op}")
        try:
            found = OPERATIONS[node.op](node, *inputs)
        except (RuntimeError, TypeError, IndexError, KeyError, ValueError) as error:
            if isinstance(error, ConversionError):
                raise
            shapes = ", ".join(str(tuple(i.shape)) for i in inputs)
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConversionError(f"{node.name}: {node.op} of {shapes} cannot be computed: {reason}") from None
        return found if isinstance(found, (tuple, list)) else [found]

    def _checked(self, node: Node) -> Tensor:
        """Return a variable whose shape and type are those that the graph declares."""
        name = self.variable(node)
        value, declared = self.read(name), node.attributes.get("shape")
        if isinstance(declared, tuple) and -1 not in declared and declared != tuple(value.shape):
            raise ConversionError(
                f"variable {name}: expected the shape {declared} of the graph, found {tuple(value.shape)} in the "
                "checkpoint"
            )
        meant, stored = TYPES.get(node.attributes.get("dtype")), TYPES[self.checkpoint.entries[name].dtype]
        if meant not in (None, stored):
            raise ConversionError(
                f"variable {name}: expected the type {meant} of the graph, found {stored} in the checkpoint"
            )
        return value

    def _order(self, tensors: Iterable[str], known: set[str]) -> list[Node]:
        """Return the nodes to compute for these tensors in order, without those behind tensors that are known."""
        done: dict[str, Node] = {}
        begun: set[str] = set()  # a loop would come back to them
        stack = [(split(tensor)[0], False) for tensor in reversed(list(tensors)) if key(tensor) not in known]
        while stack:
            name, ready = stack.pop()
            if name in done:
                continue
            node = self.node(name)
            if ready:
                done[name] = node
                continue
            if name in begun:
                raise ConversionError(f"{name}: expected a graph without loops, found one")
            begun.add(name)
            stack.append((name, True))
            stack += [(split(i)[0], False) for i in reversed(node.inputs) if key(i) not in known]
        return list(done.values())

    def _take_branches(self) -> None:
        """Replace each tf.cond whose condition depends on no input by the branch that is taken.

        Such a cond is a Switch before its branches, which passes its input to one of its outputs, and a Merge after.
        """
        taken: dict[str, bool] = {}
        for node in self._order([name for name, n in self.nodes.items() if n.op == "Merge"], set()):
            if node.op == "Switch" and not self.varies(node.inputs[1]):
                taken[node.name] = bool(self.constant(node.inputs[1]))
                self.nodes[node.name] = replace(node, op="IdentityN", inputs=(node.inputs[0],) * 2)
            elif node.op == "Merge":
                alive = [self._alive(tensor, taken) for tensor in node.inputs]
                known = [i for i, state in enumerate(alive) if state] or [i for i, s in enumerate(alive) if s is None]
                if len(known) == 1:  # a branch without any Switch behind it is taken if the other is not
                    self.nodes[node.name] = replace(node, op="Identity", inputs=(node.inputs[known[0]],))

    def _alive(self, tensor: str, taken: dict[str, bool]) -> bool | None:
        """Return whether a branch is computed: all its Switches lead to it; None for a branch behind no Switch."""
        states, stack, seen = [], [tensor], set()
        while stack:
            name, output = split(stack.pop())
            if (name, output) not in seen:
                seen.add((name, output))
                if name in taken:
                    states.append(taken[name] == bool(output))
                stack += self.nodes[name].inputs
        return all(states) if states else None

    def _data_dependent(self) -> set[str]:
        """Return the names of all nodes that placeholders or random numbers reach."""
        users: dict[str, list[str]] = {}
        for node in self.nodes.values():
            for tensor in node.inputs:
                users.setdefault(split(tensor)[0], []).append(node.name)
        stack = [n.name for n in self.nodes.values() if n.op in RANDOM or n.op.startswith("Placeholder")]
        found = set(stack)
        while stack:
            fresh = [user for user in users.get(stack.pop(), []) if user not in found]
            found.update(fresh)
            stack += fresh
        return found
