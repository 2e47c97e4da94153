"""Residual blocks of a graph: found by who reads whom, measured on images, and taken out.

A block is what lies between a value x and an Add of x and f(x), where nothing else reads the nodes of f. Where it goes,
the Add stays and adds the constant that f contributed on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eightfold.compress.onnx.build import build_module, node_paths
from eightfold.compress.onnx.graph_file import OnnxGraph
from eightfold.compress.onnx.inputs import settle
from eightfold.compress.plan.plan import RemovedBlock
from eightfold.compress.surgery.blocks import Block, chosen_of, rank_blocks
from eightfold.errors import PlanMismatchError
from eightfold.export.verify.module_runs import evaluating
from eightfold.onnx_graph.graph_index import GraphIndex, keep
from eightfold.onnx_graph.onnx_files import shell_of
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

    from eightfold.compress.types import Batches

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# A branch of more nodes is no block of a network, but the network.
MOST_NODES = 400


@dataclass(frozen=True)
class Branch:
    """f of one block.

    Attributes:
        add: the Add node.
        skip: which input of it is x: 0 or 1.
        nodes: those of f.
    """

    add: onnx.NodeProto
    skip: int
    nodes: tuple[onnx.NodeProto, ...]


def branches_of(graph: onnx.GraphProto) -> dict[str, Branch]:
    """Path of the Add -> the branch, for the innermost residual blocks, in the order of the graph."""
    index, paths = GraphIndex(graph), node_paths(graph)
    found: dict[str, Branch] = {}
    for node in graph.node:
        if kind(node) == "Add":
            tried = (_branch(index, node, skip) for skip in (0, 1))
            branch = next((each for each in tried if each is not None), None)
            if branch is not None:
                found[paths[node.output[0]]] = branch
    adds = {path: branch.add.output[0] for path, branch in found.items()}
    inside = {path: {name for node in branch.nodes for name in node.output} for path, branch in found.items()}
    return {path: found[path] for path in found if not inside[path] & set(adds.values())}


def _branch(index: GraphIndex, add: onnx.NodeProto, skip: int) -> Branch | None:
    x, last = add.input[skip], add.input[1 - skip]
    if x == last or x in index.weights or last not in index.producer:
        return None
    nodes: dict[int, onnx.NodeProto] = {}
    waiting = [last]
    while waiting:
        name = waiting.pop()
        if name == x or not name or name in index.weights:
            continue
        node = index.producer.get(name)
        if node is None or len(nodes) > MOST_NODES:
            return None
        if id(node) not in nodes and kind(node) != "Constant":
            nodes[id(node)] = node
            waiting += node.input
    own = {*nodes, id(add)}
    visible = index.outputs | index.captured
    made = [name for node in nodes.values() for name in node.output]
    private = all(name not in visible and all(id(r) in own for r in index.readers.get(name, [])) for name in made)
    layers = any(kind(node) in _LAYERS for node in nodes.values())
    return Branch(add, skip, tuple(nodes.values())) if private and layers else None


def choose_graph_blocks(
    graph: OnnxGraph, batches: Batches, wanted: int | Sequence[str], score: str
) -> tuple[Block, ...]:
    """The blocks to remove: the number of least important ones, or those named by their Add node; see `chosen_of`."""
    if not wanted:
        return ()
    return chosen_of(rank_blocks(measured_blocks(graph, batches), score), wanted)


def measured_blocks(graph: OnnxGraph, batches: Batches) -> tuple[Block, ...]:
    """Every block whose x and f(x) have one shape, with statistics over the batches."""
    branches, sums = branches_of(graph.model.graph), dict[str, _Sums]()
    handles = [_watch(graph.module.get_submodule(path), path, branch, sums) for path, branch in branches.items()]
    try:
        with evaluating(graph.module), torch.no_grad():
            for args in batches:
                graph.module(*args)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(sums[path].block(path) for path in branches if path in sums)


@dataclass
class _Sums:
    """Sums of a branch's outputs over all batches."""

    channel_dim: int
    total: Tensor
    count: int = 0
    branch: float = 0.0
    output: float = 0.0

    def block(self, path: str) -> Block:
        share = self.branch / max(self.output, 1e-30)
        return Block(path, "", self.channel_dim, self.total / self.count, share, float("nan"))


def _watch(step: torch.nn.Module, path: str, branch: Branch, sums: dict[str, _Sums]) -> Any:
    convolves = any(kind(node) == "Conv" for node in branch.nodes)

    def see(_: torch.nn.Module, args: tuple[Any, ...], __: Any) -> None:
        x, f = args[branch.skip], args[1 - branch.skip]
        if not (isinstance(x, Tensor) and isinstance(f, Tensor) and x.shape == f.shape and f.dim() > 1):
            return
        dim = -3 if f.dim() == 4 and convolves else -1
        by_channel = f.double().movedim(dim, 0).flatten(1)
        held = sums.setdefault(path, _Sums(dim, torch.zeros(len(by_channel), dtype=torch.float64)))
        held.total = held.total + by_channel.sum(1)
        held.count += by_channel.shape[1]
        held.branch += float(by_channel.square().sum())
        held.output += float((x.double() + f.double()).square().sum())

    return step.register_forward_hook(see)


def without_blocks(
    graph: OnnxGraph, blocks: Sequence[RemovedBlock], means: Mapping[str, Tensor] | None = None
) -> OnnxGraph:
    """Another graph without the blocks; its module shares no memory with the first.

    Args:
        means: path -> the constant [channels] that f contributed; zero where none is given.

    Raises:
        PlanMismatchError: the graph has no such block.
    """
    model = shell_of(graph.model)
    model.graph.initializer.extend(graph.model.graph.initializer)
    module = graph.module
    held: dict[str, Tensor] = {**module._parameters, **module._buffers}  # type: ignore[dict-item]  # none is None
    for block in blocks:
        branch = branches_of(model.graph).get(block.path)
        if branch is None:
            raise PlanMismatchError(
                f"{graph.path} has no residual block {block.path!r}, which the plan removes",
                remedy="apply the plan to the file that it was made for",
            )
        name = _take_out(model.graph, branch, block)
        mean = (means or {}).get(block.path, torch.zeros(block.channels))
        like = held[next(iter(held))]
        held[name] = mean.to(like.dtype).reshape(block.channels, *[1] * (-1 - block.channel_dim))
    copies = {name: tensor.detach().clone() for name, tensor in held.items()}
    made = OnnxGraph(graph.path, model, build_module(model, graph.path.parent, copies), graph.size)
    settle(made.module, graph.size)
    return made


def _take_out(graph: onnx.GraphProto, branch: Branch, block: RemovedBlock) -> str:
    """Remove the nodes of f and what only they read; returns the name of the constant in their place."""
    index = GraphIndex(graph)
    name = index.free(f"{block.path}.shift")
    gone = {id(node) for node in branch.nodes}
    values = {output for node in branch.nodes for output in node.output}
    branch.add.input[1 - branch.skip] = name
    keep(graph.node, lambda node: id(node) not in gone)
    keep(graph.value_info, lambda value: value.name not in values)
    read = (
        {each for node in graph.node for each in node.input} | {value.name for value in graph.output} | index.captured
    )
    keep(graph.initializer, lambda tensor: tensor.name in read)
    keep(graph.node, lambda node: kind(node) != "Constant" or node.output[0] in read)
    sizes = [block.channels] + [1] * (-1 - block.channel_dim)
    elem_type = next((tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1), 1)
    graph.initializer.add(name=name, data_type=elem_type, dims=sizes)
    return name
