"""How close an encoder comes to portraits of people who were held out of all training.

    python benchmarks/encoder.py DATA_DIR [--encoder limn-encoder64] [--generator limn-portraits64]

Prints PSNR at the generator's size (beside that of its mean face), the cosine of the limn-identity embeddings of picture and
inversion, and PSNR on samples of the generator.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from limn import weights
from limn.training.datasets import open_dataset


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over pictures (N, 3, H, W) in [-1, 1], in decibels."""
    return float((10 * torch.log10(4 / (a - b).square().mean((1, 2, 3)))).mean())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", default="limn-encoder64")
    parser.add_argument("--generator", default="limn-portraits64")
    options = parser.parse_args()
    encoder, generator, identity = (weights.load(name).model for name in (options.encoder, options.generator, "limn-identity"))
    held_out = open_dataset("images", options.data / "portraits128.zip", generator.config, train=False, where=["era=modern"])
    pictures = held_out.batch(0, len(held_out), 0)["image"]  # one epoch: every picture once

    def again(images: Tensor) -> Tensor:
        return torch.cat([generator.synthesis(encoder.encode(part)) for part in images.split(32)]).clamp(-1, 1)

    found, mean = again(pictures), generator.synthesis(generator.w_avg.expand(1, generator.num_ws, -1)).clamp(-1, 1)
    z = torch.randn(64, generator.config.z_dim, generator=torch.Generator().manual_seed(1))
    samples = generator(z).clamp(-1, 1)
    alike = F.cosine_similarity(identity.embed(pictures), identity.embed(found)).mean()
    print(f"{len(pictures)} held-out portraits: PSNR {psnr(pictures, found):.2f} dB (mean face {psnr(pictures, mean):.2f})")
    print(f"identity {float(alike):.3f}; samples of the generator: PSNR {psnr(samples, again(samples)):.2f} dB")


if __name__ == "__main__":
    main()
