"""Boxes of detectors: overlap and non-maximum suppression, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the overlap (A, B) of every box of (A, 4) with every box of (B, 4); boxes are x0, y0, x1, y1."""
    inner = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])).clamp(min=0).prod(-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clamp(min=0).prod(-1) for box in (a, b))
    return inner / (area_a[:, None] + area_b[None] - inner).clamp(min=1e-9)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return the indices of the boxes (N, 4) that no better-scored kept box overlaps by more than the threshold, best first."""
    order = scores.argsort(descending=True, stable=True)
    overlaps = iou(boxes[order], boxes[order]) > iou_threshold
    alive, kept = torch.ones(len(order), dtype=torch.bool, device=boxes.device), []
    for i in range(len(order)):
        if alive[i]:
            kept.append(i)
            alive &= ~overlaps[i]
    return order[torch.tensor(kept, dtype=torch.long, device=boxes.device)]
