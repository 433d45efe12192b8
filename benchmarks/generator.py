"""How good is a generator? Distances to held-out portraits, faces found, nearest training pictures, and a sheet to look at.

    python benchmarks/generator.py MODEL DATA_DIR [--where era=modern ...] [--count 2000] [--out FOLDER]

MODEL is a native file or a name in the box; DATA_DIR holds portraits128.zip. Beside a distance stands its floor: that of as many training
portraits to the same held-out ones. Small held-out sets bias Fréchet distances upwards: compare with the floor.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from limn.errors import WeightsError
from limn.media import atomic, grid, to_image
from limn.metrics import measurement, neighbours
from limn.metrics.features import vectors
from limn.metrics.frechet import frechet
from limn.metrics.kernel import kid
from limn.metrics.measurement import Measurement
from limn.metrics.precision import precision_recall
from limn.metrics.sliced import sliced_wasserstein
from limn.models.records import seeded
from limn.training.datasets import images as portraits
from limn.weights import load

PORTRAITS = ["era=modern", "chroma>2", "fill_frac<0.08"]  # what the generators in the box are trained on
SHEET = 16  # faces that are looked at
SHOWN = 3  # neighbours of each
TEXTURES = 1000  # pictures of each set whose textures are compared: sorting their patches is what takes long


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--where", nargs="*", default=PORTRAITS, help="which portraits it was trained on, as for training")
    parser.add_argument("--count", type=int, default=2000, help="samples")
    parser.add_argument("--truncation", type=float, default=1.0, help="of the samples that are measured; the sheet is at 0.7")
    parser.add_argument("--identity", default="limn-identity", help="name or file of the feature network")
    parser.add_argument("--out", type=Path, default=Path("generator-report"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_grad_enabled(False)
    loaded, feature = load(options.model), load(options.identity)
    generator, network = loaded.model.eval(), feature.model.eval()
    sets = [open_portraits(options.data, generator, options.where, train) for train in (True, False)]
    samples = sample(generator, range(options.count), options.truncation)
    shared: dict[str, str | int | float] = {"samples": options.count, "truncation": options.truncation}
    space = {"features": f"limn-identity {feature.hash[:12]}", "resize": "bilinear antialiased to 64"}
    found = [*distances(network, samples, *sets, shared | space), *textures(samples, *sets, shared), *faces(samples, shared)]
    found += memory(network, generator, samples, sets[0], options.out)
    save(grid(shown(sample(generator, range(SHEET), 0.7))), options.out / "seeds.png")
    about = {"model": options.model, "hash": loaded.hash, "portraits": " ".join(options.where)} | {
        name: value for name, value in loaded.meta.items() if isinstance(value, str | int) and name in ("step", "images")
    }
    measurement.write(options.out / "report.json", found, about)
    print(*[f"{name}: {value}" for name, value in about.items()], *found, f"sheets and report.json in {options.out}", sep="\n")


def open_portraits(data: Path, generator: Any, where: list[str], train: bool) -> Tensor:
    """Return the training or the held-out portraits (N, 3, S, S) in [-1, 1] at the generator's size."""
    return portraits.tensor(portraits.open(data / "portraits128.zip", generator.config, train, where).pictures)


def sample(generator: Any, seeds: range, truncation: float, batch: int = 32) -> Tensor:
    """Return images (N, 3, S, S) in [-1, 1] of seeds; seed n gives the same face as `limn generate --seeds n`."""
    parts = []
    for first in range(seeds.start, seeds.stop, batch):
        z = torch.stack(
            [torch.randn(generator.config.z_dim, generator=seeded(seed)) for seed in range(first, min(first + batch, seeds.stop))]
        )
        parts.append(generator.synthesis(generator.mapping.truncate(generator.mapping(z), truncation)).clamp(-1, 1))
    return torch.cat(parts)


def distances(network: Any, samples: Tensor, train: Tensor, held: Tensor, protocol: dict[str, Any]) -> list[Measurement]:
    """Fréchet and kernel distance, precision and recall in limn-identity's space, against the held-out and the training portraits."""
    of_samples, of_train, of_held = (vectors(network.moments, each) for each in (samples, train, held))
    floor = of_train[torch.randperm(len(of_train), generator=seeded(0))[: len(of_samples)]]
    shares = precision_recall(of_samples, of_train)
    held_out, training = protocol | {"held-out": len(held)}, protocol | {"training": len(train)}
    return [
        Measurement("frechet", frechet(of_samples.numpy(), of_held.numpy()), held_out),
        Measurement("frechet floor", frechet(floor.numpy(), of_held.numpy()), held_out),
        Measurement("frechet to training", frechet(of_samples.numpy(), of_train.numpy()), training),
        Measurement("kid x 1000", 1000 * kid(of_samples.numpy(), of_train.numpy())[0], training | {"subsets": "100 x 1000"}),
        Measurement("precision", shares.precision, training | {"neighbours": 3}),
        Measurement("recall", shares.recall, training | {"neighbours": 3}),
    ]


def textures(samples: Tensor, train: Tensor, held: Tensor, protocol: dict[str, Any]) -> list[Measurement]:
    """Sliced Wasserstein distance of every level, against training portraits, with others of those as the floor."""
    count = min(len(samples), len(train) // 2, TEXTURES)
    order = torch.randperm(len(train), generator=seeded(0))
    ours = sliced_wasserstein(samples[:count], train[order[:count]])
    half = sliced_wasserstein(train[order[:count]], train[order[-count:]])
    held_out = sliced_wasserstein(samples[:count], held)
    terms = protocol | {"pictures": count, "patches": "128 of 7x7 per level", "directions": 512}
    levels = [Measurement(f"sliced wasserstein {size}", value, terms) for size, value in ours.levels.items()]
    return [
        *levels,
        Measurement("sliced wasserstein mean", ours.mean, terms),
        Measurement("sliced wasserstein floor", half.mean, terms),
        Measurement("sliced wasserstein held-out", held_out.mean, terms | {"pictures": min(count, len(held))}),
    ]


def faces(samples: Tensor, protocol: dict[str, Any], most: int = 500) -> list[Measurement]:
    """Share of samples in which our own detector finds a face: enlarged to 256 pixels on a grey ground of 384."""
    from limn.faces import detect

    counts = []
    for picture in pictures(samples[:most]):
        canvas = Image.new("RGB", (384, 384), (128, 128, 128))
        canvas.paste(picture.resize((256, 256), Image.Resampling.BICUBIC), (64, 64))
        try:
            counts.append(len(detect(canvas)))
        except WeightsError as error:
            print(f"faces found: not measured ({error})")
            return []
    return [Measurement("faces found", sum(count > 0 for count in counts) / len(counts), protocol | {"looked at": len(counts)})]


def memory(network: Any, generator: Any, samples: Tensor, train: Tensor, out: Path) -> list[Measurement]:
    """Share of samples nearer to a training picture than those are to each other, and a sheet of samples beside their neighbours."""
    describe = network.embed
    references = vectors(describe, train)
    share = neighbours.copied(vectors(describe, samples), references)
    looked_at = sample(generator, range(SHEET), 0.7)
    near = neighbours.nearest(vectors(describe, looked_at), references, SHOWN)
    rows = [torch.cat([image[None], train[index]]) for image, index in zip(looked_at, near.indices, strict=True)]
    labels = [text for row in near.distances for text in ("new", *(f"{distance:.2f}" for distance in row.tolist()))]
    save(grid(shown(torch.cat(rows)), columns=2 * (1 + SHOWN), labels=labels), out / "neighbours.png")
    return [Measurement("nearer than training pairs", share, {"bar": "1st percentile of training pictures' nearest, identity space"})]


def pictures(images: Tensor) -> list[Any]:
    """Images (N, 3, S, S) as PIL pictures."""
    return [to_image(image) for image in images]


def shown(images: Tensor, least: int = 96) -> list[Any]:
    """Images (N, 3, S, S) as PIL pictures large enough to be looked at: enlarged by a whole factor, pixel by pixel."""
    size = images.shape[-1] * max(1, -(-least // images.shape[-1]))
    return [picture.resize((size, size), Image.Resampling.NEAREST) for picture in pictures(images)]


def save(picture: Any, path: Path) -> None:
    with atomic(path) as beside:
        picture.save(beside, "PNG")


if __name__ == "__main__":
    main()
