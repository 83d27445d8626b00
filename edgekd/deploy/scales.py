"""Tensors that must share one scale, found by union-find over the operators that pass INT8 through.

A Concat whose inputs have different scales has to be requantized by the engine: slower, and rounded twice. So all
inputs and outputs of a Concat, MaxPool, Resize or Split get the range that covers the whole group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import onnx

Range = tuple[float, float]


class UnionFind:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """Return the representative of the set that holds `name`, which may be new."""
        root = name
        while (above := self._parent.setdefault(root, root)) != root:
            root = above
        while name != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, names: Iterable[str]) -> None:
        """Merge the sets of all these names."""
        first, *others = names
        for other in others:
            self._parent[self.find(other)] = self.find(first)


def passed_through(node: onnx.NodeProto) -> list[str]:
    """Return the tensors of a pass-through operator that carry the data: not its sizes and split lengths."""
    inputs = list(node.input) if node.op_type == "Concat" else [node.input[0]]
    return [*inputs, *node.output]


def tied_groups(nodes: Iterable[onnx.NodeProto], tied_ops: Collection[str]) -> UnionFind:
    """Return which tensors share a scale, through any chain of `tied_ops`."""
    groups = UnionFind()
    for node in nodes:
        if node.op_type in tied_ops:
            groups.join(passed_through(node))
    return groups


def tie_ranges(ranges: Mapping[str, Range], groups: UnionFind) -> dict[str, Range]:
    """Give every tensor the smallest range that covers its whole group."""
    widest: dict[str, Range] = {}
    for name, (low, high) in ranges.items():
        root = groups.find(name)
        other = widest.get(root, (low, high))
        widest[root] = (min(low, other[0]), max(high, other[1]))
    return {name: widest[groups.find(name)] for name in ranges}
