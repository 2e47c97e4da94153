"""Weights of the matching points."""

from __future__ import annotations

import torch
from torch import nn

import eightfold as ef
from eightfold.compress.compensate.consumers import consumers_of
from eightfold.compress.modules.norms import running_means_behind
from eightfold.compress.modules.output_kinds import kinds_of
from eightfold.compress.train.recover.points import points_of


def test_vectors_of_one_image_have_finite_weights() -> None:
    """As behind global pooling, in a network whose batch is fixed at 1."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()
    images = (torch.rand(1, 3, 8, 8),)
    graph = ef.trace(network, images)
    plan = ef.plan_pruning(network, images, graph=graph)
    consumers = consumers_of(graph, plan, running_means_behind(network, images))
    with torch.no_grad():
        batches = [(torch.rand(1, 3, 8, 8),) for _ in range(4)]
        kinds = kinds_of([network(*batch) for batch in batches])
    points = points_of(network, consumers, batches, kinds)
    assert [point.name for point in points] == ["0.weight", "3.weight"]
    for point in points:
        assert bool(point.scale.isfinite().all())
        assert 0 < float(point.scale.max()) < 1e9
        assert 0 < point.weight < 2
