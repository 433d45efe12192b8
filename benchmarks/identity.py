"""How well does the identity network tell people apart? Accuracy on balanced pairs of people whom it has not seen.

    python benchmarks/identity.py DATA_DIR [--model limn-identity]

DATA_DIR holds portraits128.zip (its held-out people) and, where there, lfw128.zip (Labeled Faces in the Wild, for testing only). Chance is
0.5; the threshold is chosen on nine tenths of the pairs and tried on the last, ten times. Impostor pairs are made of the genuine pairs'
own pictures. Pixels compared as they are, and an untrained network, are the floors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.metrics.identity import embed, verification
from limn.models.perception.limn_identity import Identity
from limn.training.datasets import identities
from limn.weights import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="limn-identity", help="name or file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = load(options.model).model.eval()
    assert isinstance(network, Identity)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = Identity(network.config).eval()
    for name, everyone in (("portraits128.zip", False), ("lfw128.zip", True)):
        if not (options.data / name).exists():
            print(f"{name}: not in {options.data}, left out")
            continue
        people = identities.open(options.data / name, network.config, train=False, everyone=everyone)
        measured = {"limn-identity": lambda images: embed(network, images), "untrained": lambda images: embed(untrained, images)}
        for what, describe in (measured | {"pixels": thumbnails}).items():
            print(f"{name:18} {'all' if everyone else 'held-out'} people {len(people.people)}  {what:14} {figures(people, describe)}")


def figures(people: identities.Identities, describe: Callable[[Tensor], Tensor]) -> str:
    """Measure a description (N, D) of unit length on the balanced pairs of a data set."""
    vectors = torch.cat([describe(part.float() / 127.5 - 1) for part in people.pictures.split(64)])
    a, b, same = people.pairs()
    cosine, truth = (vectors[a] * vectors[b]).sum(1).numpy(), same.numpy()
    accuracy, threshold = verification(cosine, truth)
    at = np.quantile(cosine[~truth], 0.99)
    return (
        f"accuracy {accuracy:.3f} on {len(truth)} pairs (threshold {threshold:.2f}; same {cosine[truth].mean():.2f}, "
        f"different {cosine[~truth].mean():.2f}; accepted at 1 % false: {np.mean(cosine[truth] > at):.2f})"
    )


def thumbnails(images: Tensor) -> Tensor:
    """Grey thumbnails of 24x24, mean taken off, of unit length: what an image without any learning says."""
    small = F.interpolate(images.mean(1, keepdim=True), size=24, mode="bilinear", antialias=True, align_corners=False).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True))


if __name__ == "__main__":
    main()
