"""The games that generators and discriminators play besides the logistic one, as the published trainers score them.

Every score is the mean over a batch of logits of any shape; discriminators add the score of real and of generated images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Game = Callable[..., Tensor]  # (logits, real, generator=False) -> scalar


def vanilla(logits: Tensor, real: bool, generator: bool = False) -> Tensor:  # noqa: ARG001 - the same for both players
    """Cross-entropy of saying real or not (arXiv 1406.2661), also called logistic, original, or softplus."""
    return F.softplus(-logits if real else logits).mean()


def least_squares(logits: Tensor, real: bool, generator: bool = False) -> Tensor:  # noqa: ARG001 - the same for both players
    """Squared distance to 1 or 0, without a half (LSGAN, arXiv 1611.04076)."""
    return (logits - float(real)).square().mean()


def signed_squares(logits: Tensor, real: bool, generator: bool = False) -> Tensor:  # noqa: ARG001 - the same for both players
    """Squared distance to 1 or -1: least squares for relativistic logits, which are differences (DeblurGAN-v2, arXiv 1908.03826)."""
    return (logits - (1.0 if real else -1.0)).square().mean()


def hinge(logits: Tensor, real: bool, generator: bool = False) -> Tensor:
    """Margin of 1 for the discriminator, the plain mean for the generator (arXiv 1705.02894)."""
    sign = -1.0 if real else 1.0
    return sign * logits.mean() if generator else F.relu(1 + sign * logits).mean()


def wasserstein(logits: Tensor, real: bool, generator: bool = False) -> Tensor:  # noqa: ARG001 - the same for both players
    """The critic's mean, up for real ones (arXiv 1701.07875)."""
    return -logits.mean() if real else logits.mean()


GAMES: dict[str, Game] = {
    "vanilla": vanilla,
    "least_squares": least_squares,
    "signed_squares": signed_squares,
    "hinge": hinge,
    "wasserstein": wasserstein,
}


def relativistic_discriminator(game: Game, real: Tensor, fake: Tensor) -> Tensor:
    """Each kind against the mean of the other, held fixed (RaGAN, arXiv 1807.00734, as ESRGAN trains its discriminator)."""
    return 0.5 * (game(real - fake.detach().mean(), True) + game(fake - real.detach().mean(), False))


def relativistic_generator(game: Game, real: Tensor, fake: Tensor) -> Tensor:
    """The same with the roles exchanged; the mean of the generated ones carries a gradient."""
    real = real.detach()
    return 0.5 * (game(real - fake.mean(), False, True) + game(fake - real.mean(), True, True))


def over_scales(game: Game, logits: Sequence[Sequence[Tensor] | Tensor], real: bool, generator: bool = False) -> Tensor:
    """Mean score over the scales of a multi-scale discriminator; of a scale that also gives features the last entry is the logits."""
    last = [scale if isinstance(scale, Tensor) else scale[-1] for scale in logits]
    return torch.stack([game(each, real, generator) for each in last]).mean()


class Remembered:
    """The mean over the logits of the last `size` batches, held fixed, which DeblurGAN-v2 compares with instead of one batch's."""

    def __init__(self, size: int = 50) -> None:
        self.batches: deque[Tensor] = deque(maxlen=size)

    def add(self, logits: Tensor) -> Tensor:
        """Take a batch and return the mean over all that are remembered."""
        self.batches.append(logits.detach())
        return torch.cat(list(self.batches)).mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor, *, channels: bool = False) -> Tensor:
    """Mean squared distance of the critic's gradient length from 1 between images (N, C, H, W); weight 10 is usual (arXiv 1704.00028).

    `share` (N, 1, 1, 1) in [0, 1] of the real image is mixed in. The length is that of a whole sample; with `channels` that over the
    channels of every pixel, which BasicSR and DeblurGAN-v2 publish.
    """
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    length = gradient.norm(dim=1) if channels else gradient.flatten(1).norm(dim=1)
    return (length - 1).square().mean()
