"""What a generator and a discriminator want of each other's logits, and the penalties that keep them tame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def logistic(logits: Tensor, real: bool) -> Tensor:
    """Non-saturating logistic loss per sample: small when `logits` say what `real` says (arXiv 1406.2661)."""
    return F.softplus(-logits if real else logits)


def r1(logits: Tensor, images: Tensor) -> Tensor:
    """R1 penalty per sample: squared gradient of the logits at the real images (arXiv 1801.04406, eq. 9, without gamma/2)."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3))


def path_lengths(images: Tensor, w_plus: Tensor, noise: Tensor) -> Tensor:
    """Length (N,) of the image's gradient along w for a random direction `noise` in image space (StyleGAN2, eq. 4)."""
    direction = noise / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * direction).sum(), w_plus, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()
