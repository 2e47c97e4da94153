"""Small networks with layer norms, trained on Fashion-MNIST: a ConvNeXt, two vision transformers, a PoolFormer.

Each is trained once (some ten minutes on one core) and its weights are kept in a cache folder.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from eightfold.zoo.datasets.fashion import Part, read_fashion

EPOCHS = {"convnext": 5, "poolformer": 5, "vit": 3, "post-norm": 2}
BATCH = 128
RATE = 2e-3
CACHE = Path(tempfile.gettempdir()) / "eightfold-fashion-networks"


@dataclass(frozen=True)
class Fashion:
    """Images are float32 (n, 1, 32, 32), padded, with zero mean and unit deviation before that; labels int64 (n,)."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_fashion() -> Fashion:
    train, test = (read_fashion(part) for part in ("train", "test"))
    return Fashion(*_tensors(train), *_tensors(test))


def _tensors(part: Part) -> tuple[Tensor, Tensor]:
    images = F.pad(torch.from_numpy(part.images.copy()).float()[:, None] / 255, (2, 2, 2, 2))
    return (images - 0.286) / 0.353, torch.from_numpy(part.labels.copy()).long()


def _convnext() -> nn.Module:
    from timm.models.convnext import ConvNeXt

    # From 1e-6, five epochs leave layer scales so small that the blocks hardly count.
    sizes = {"depths": (2, 2, 2, 1), "dims": (32, 64, 96, 128), "patch_size": 2}
    return ConvNeXt(in_chans=1, num_classes=10, ls_init_value=0.3, **sizes)


def _vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(32, 4, in_chans=1, num_classes=10, embed_dim=64, depth=6, num_heads=4)


def _post_norm() -> nn.Module:
    """A transformer whose branches end in a norm, as those of Swin v2 do: nothing that reads it could make it good."""
    from timm.models.vision_transformer import ResPostBlock, VisionTransformer

    sizes = {"embed_dim": 64, "depth": 4, "num_heads": 4}
    return VisionTransformer(32, 4, in_chans=1, num_classes=10, block_fn=ResPostBlock, init_values=1.0, **sizes)


def _poolformer() -> nn.Module:
    from timm.models.metaformer import MetaFormer

    return MetaFormer(in_chans=1, num_classes=10, depths=(1, 1, 2, 1), dims=(32, 48, 64, 96))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convnext": _convnext,
    "vit": _vit,
    "post-norm": _post_norm,
    "poolformer": _poolformer,
}


def trained(name: str, data: Fashion) -> nn.Module:
    """The network in eval mode, from the cache or trained now."""
    torch.manual_seed(0)
    model, path = NETWORKS[name](), CACHE / f"{name}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    start = time.process_time()
    train(model, data, epochs=EPOCHS[name])
    print(f"{name}: trained in {time.process_time() - start:.0f} CPU s", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return model


def train(model: nn.Module, data: Fashion, *, epochs: float, rate: float = RATE, seed: int = 0) -> None:
    """With labels, in place: AdamW under one cycle of the learning rate; mirrored images. Ends in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    steps = int(epochs * len(data.train_images) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(data.train_images), (BATCH,), generator=generator)
        images = data.train_images[chosen]
        images = images.flip(3) if torch.rand((), generator=generator) < 0.5 else images
        loss = F.cross_entropy(model(images), data.train_labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def top1_percent(model: nn.Module, data: Fashion) -> float:
    """Of the test images, in eval mode."""
    right = sum(
        int((model.eval()(images).argmax(1) == labels).sum())
        for images, labels in zip(data.test_images.split(250), data.test_labels.split(250), strict=True)
    )
    return 100 * right / len(data.test_images)
