from __future__ import annotations

import pytest
import torch
import torchvision

from eightfold.compress.trace.trace import trace


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_places_of_layers_point_at_the_groups_that_own_their_weights(name: str) -> None:
    graph = trace(torchvision.models.get_model(name, weights=None), torch.rand(1, 3, 64, 64))
    for layer in graph.layers:
        for places, dim in ((layer.inputs, 1), (layer.outputs, 0)):
            for group, channel in places[places[:, 0] >= 0].tolist():
                owner = graph.groups[group]
                assert 0 <= channel < owner.width
                assert layer.depthwise or (layer.weight, dim) in {(m.tensor, m.dim) for m in owner.members}
