"""Feature vectors of many images for the distances between sets: by limn-identity, which is in the box, or by any network given."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


@torch.inference_mode()
def vectors(describe: Callable[[Tensor], Tensor], images: Tensor | Iterable[Tensor], batch: int = 64) -> Tensor:
    """Return (N, D) float32 of images (N, 3, H, W) in [-1, 1], or of batches of them, as `describe` sees a batch.

    `describe` is limn-identity's `moments` for limn's own Fréchet distance, Inception's `describe` for FID, or `embed` for identity.
    """
    parts = images.split(batch) if isinstance(images, Tensor) else images
    return torch.cat([describe(part).float().cpu() for part in parts])
