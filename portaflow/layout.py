"""Places a graph's nodes in layers from left to right. Pure; for pictures, not for running.

Layers by longest path; an edge over several layers gets a joint in each that it passes, so
that it goes round the nodes; two kinds of sweeps order each layer and pull nodes towards
what they are connected with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 8
_MOST_JOINTS = 2000

Key = str | tuple[str, str, int]
"""A node's name, or a joint: an edge and the layer it passes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Upper left corners of the nodes, paths of the edges for an SVG, and the whole's size."""

    nodes: Mapping[str, tuple[float, float]]
    edges: Mapping[tuple[str, str], str]
    width: float
    height: float


def layout(
    upstream: Mapping[str, frozenset[str]], box: tuple[float, float], gap: tuple[float, float]
) -> Layout:
    """Place the nodes of `upstream` (in topological order, each with those before it)."""
    depth: dict[str, int] = {}
    for node, needs in upstream.items():
        depth[node] = max((depth[b] + 1 for b in needs), default=0)
    edges = [(b, node) for node, needs in upstream.items() for b in sorted(needs)]
    chains = _chains(edges, depth)
    layers = _layers(depth, chains)
    before, after = _neighbours(chains)
    _order(layers, before, after)
    heights = {key: box[1] if isinstance(key, str) else 2.0 for layer in layers for key in layer}
    middle = _heights(layers, before, after, heights, gap[1])
    top = min(middle[k] - heights[k] / 2 for k in middle)
    x = {key: n * (box[0] + gap[0]) for n, layer in enumerate(layers) for key in layer}
    y = {key: middle[key] - top for key in middle}
    return Layout(
        nodes={n: (round(x[n], 1), round(y[n] - box[1] / 2, 1)) for n in upstream},
        edges={edge: _path(chain, x, y, box[0]) for edge, chain in chains.items()},
        width=len(layers) * (box[0] + gap[0]) - gap[0],
        height=max(y[k] + heights[k] / 2 for k in y),
    )


def _chains(
    edges: list[tuple[str, str]], depth: Mapping[str, int]
) -> dict[tuple[str, str], list[Key]]:
    many = sum(depth[b] - depth[a] - 1 for a, b in edges) > _MOST_JOINTS
    return {
        (a, b): [a, *((a, b, n) for n in range(depth[a] + 1, depth[b]) if not many), b]
        for a, b in edges
    }


def _layers(
    depth: Mapping[str, int], chains: Mapping[tuple[str, str], list[Key]]
) -> list[list[Key]]:
    layers: list[list[Key]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for node, n in depth.items():
        layers[n].append(node)
    for chain in chains.values():
        for key in chain:
            if isinstance(key, tuple):
                layers[key[2]].append(key)
    return layers


def _neighbours(
    chains: Mapping[tuple[str, str], list[Key]],
) -> tuple[dict[Key, list[Key]], dict[Key, list[Key]]]:
    before: dict[Key, list[Key]] = {}
    after: dict[Key, list[Key]] = {}
    for chain in chains.values():
        for a, b in pairwise(chain):
            before.setdefault(b, []).append(a)
            after.setdefault(a, []).append(b)
    return before, after


def _order(
    layers: list[list[Key]], before: Mapping[Key, list[Key]], after: Mapping[Key, list[Key]]
) -> None:
    """Sort each layer by the mean place of its neighbours, to and fro."""
    place = {key: float(n) for layer in layers for n, key in enumerate(layer)}
    for sweep in range(_SWEEPS):
        near = after if sweep % 2 else before
        for layer in reversed(layers) if sweep % 2 else layers:
            layer.sort(key=lambda k: _mean([place[o] for o in near.get(k, ())], place[k]))
            place.update({key: float(n) for n, key in enumerate(layer)})


def _heights(
    layers: list[list[Key]],
    before: Mapping[Key, list[Key]],
    after: Mapping[Key, list[Key]],
    heights: Mapping[Key, float],
    gap: float,
) -> dict[Key, float]:
    """The middle of each key: near its neighbours, and never nearer to the next than `gap`."""
    y: dict[Key, float] = {}
    for layer in layers:
        _spread(layer, dict.fromkeys(layer, 0.0), y, heights, gap)
    for sweep in range(_SWEEPS):
        near = before if sweep % 2 else after
        for layer in layers if sweep % 2 else reversed(layers):
            wanted = {k: _mean([y[o] for o in near.get(k, ())], y[k]) for k in layer}
            _spread(layer, wanted, y, heights, gap)
    return y


def _spread(
    layer: list[Key],
    wanted: Mapping[Key, float],
    y: dict[Key, float],
    heights: Mapping[Key, float],
    gap: float,
) -> None:
    """Put each as near as can be to the place it wants: those in each other's way as a block.

    A block lies where its members want it on average (isotonic regression, by pooling).
    """
    offset, edge = [], 0.0  # of each from the first, if all were packed
    for key in layer:
        offset.append(edge + heights[key] / 2)
        edge += heights[key] + gap
    blocks: list[tuple[float, int]] = []  # where the members want it, in sum; how many they are
    for key, packed in zip(layer, offset, strict=True):
        total, count = wanted[key] - packed, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before = blocks.pop()
            total, count = total + before[0], count + before[1]
        blocks.append((total, count))
    places = [total / count for total, count in blocks for _ in range(count)]
    y.update({k: at + packed for k, at, packed in zip(layer, places, offset, strict=True)})


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _path(chain: list[Key], x: Mapping[Key, float], y: Mapping[Key, float], width: float) -> str:
    """A curve through all of a chain, level where it leaves, passes and arrives."""
    at = x[chain[0]] + width
    path = f"M{at:.1f} {y[chain[0]]:.1f}"
    for a, b in pairwise(chain):
        half = (x[b] - at) / 2
        path += f"C{at + half:.1f} {y[a]:.1f} {x[b] - half:.1f} {y[b]:.1f} {x[b]:.1f} {y[b]:.1f}"
        if b != chain[-1]:
            path += f"h{width:.1f}"
        at = x[b] + width
    return path
