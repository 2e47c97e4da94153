"""The candidates of a detector in its graph: limits by group, then the best of all, in the runtime's order."""

from __future__ import annotations

import dataclasses

import numpy as np

from eightfold.export.in_graph.box_heads import BoxHead
from eightfold.onnx_graph.graph_builder import GraphBuilder
from eightfold.runtime.postprocess.anchor_heads import Fcos, RetinaNet, Ssd
from eightfold.runtime.postprocess.detect import Detector


@dataclasses.dataclass(frozen=True)
class BoxCandidates:
    """Names of (batch, count) tensors. A number is location * classes + class: it orders equal scores, since TopK puts
    the first of them first."""

    scores: str
    numbers: str
    count: int


def best_candidates(build: GraphBuilder, decoder: Detector, head: BoxHead, batch: int) -> BoxCandidates:
    """The best `max_candidates` of each image, best first."""
    found = _listed(build, decoder, head, batch)
    return _best(build, found, min(decoder.max_candidates, found.count))


def _best(build: GraphBuilder, found: BoxCandidates, limit: int) -> BoxCandidates:
    scores, places = build.add_many(2, "TopK", found.scores, build.ints([limit]), axis=1)
    numbers = build.add("GatherElements", found.numbers, places, axis=1) if found.numbers else places
    return BoxCandidates(scores, numbers, limit)


def _listed(build: GraphBuilder, decoder: Detector, head: BoxHead, batch: int) -> BoxCandidates:
    if not decoder.multi_label:
        return _best_class_of_each_location(build, head, batch)
    scores = head.score(head.values)
    if isinstance(decoder, Ssd):
        return _best_of_each_class(build, scores, head, batch, decoder.class_candidates)
    if isinstance(decoder, RetinaNet | Fcos):
        return _best_of_each_level(build, scores, head, batch, decoder.level_candidates)
    count = head.locations * head.classes
    return BoxCandidates(build.reshape(scores, batch, count), "", count)


def _best_class_of_each_location(build: GraphBuilder, head: BoxHead, batch: int) -> BoxCandidates:
    values, classes = build.add_many(2, "TopK", head.values, build.ints([1]), axis=2)
    firsts = build.ints(np.arange(head.locations)[:, None] * head.classes)
    numbers = build.reshape(build.add("Add", classes, firsts), batch, head.locations)
    return BoxCandidates(build.reshape(head.score(values), batch, head.locations), numbers, head.locations)


def _best_of_each_class(build: GraphBuilder, scores: str, head: BoxHead, batch: int, limit: int) -> BoxCandidates:
    """Equal scores of different classes come in the order of the classes here; these do not compete."""
    limit = min(limit, head.locations)
    by_class = build.add("Transpose", scores, perm=[0, 2, 1])
    best, locations = build.add_many(2, "TopK", by_class, build.ints([limit]), axis=2)
    starts = build.add("Mul", locations, build.ints(head.classes))
    numbers = build.add("Add", starts, build.ints(np.arange(head.classes)[:, None]))
    count = limit * head.classes
    return BoxCandidates(build.reshape(best, batch, count), build.reshape(numbers, batch, count), count)


def _best_of_each_level(build: GraphBuilder, scores: str, head: BoxHead, batch: int, limit: int) -> BoxCandidates:
    levels, start = [], 0
    for part, length in zip(build.split(scores, head.levels, 1), head.levels, strict=True):
        count = length * head.classes
        level = _best(build, BoxCandidates(build.reshape(part, batch, count), "", count), min(limit, count))
        levels.append(dataclasses.replace(level, numbers=build.add("Add", level.numbers, build.ints(start))))
        start += count
    best = build.concat([level.scores for level in levels], 1)
    numbers = build.concat([level.numbers for level in levels], 1)
    return BoxCandidates(best, numbers, sum(level.count for level in levels))
