"""Finds the directions that ship with a generator, checks what each one moves on 200 fresh samples, and writes the bundle.

    python benchmarks/directions.py DATA_DIR [--generator limn-portraits64] [--out FOLDER] [--check BUNDLE]

Measured in every picture: expression and pose from the mesh, colour statistics, and age and gender as read from the identity
network's features by ridges fitted to labels in portraits128.zip (age: the London and Canada sets, and the years of birth of the
113th Congress; gender: London and Canada), tried on people left out. A direction ships if it moves what it names most, and more
than the identity; --check only measures the directions of a bundle.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn import weights
from limn.faces import measures
from limn.latent import discover, factor
from limn.latent.appearance import appearance
from limn.latent.directions import Direction, load_directions, move, save_directions
from limn.latent.discover import Moved, Survey
from limn.latent.spaces import w_to_w_plus
from limn.media import grid, to_image, write_image
from limn.training.datasets import images as portraits

RATIO = "one standard deviation among the generator's faces; +1 is "
UNITS = {
    "smile": RATIO + "more of a smile",
    "mouth_open": RATIO + "a more open mouth",
    "eyes_open": RATIO + "wider eyes",
    "brow": RATIO + "higher brows",
    "yaw": RATIO + "a head turned further",
    "pitch": RATIO + "a head tilted further",
    "age": RATIO + "looking older",
    "gender": RATIO + "more like the men, -1 more like the women of the London and Canada sets",
    "colour": RATIO + "stronger colours; far below zero is a grey picture",
    "hair": RATIO + "lighter hair",
    "light_side": RATIO + "light more from the picture's right",
    "light_top": RATIO + "light more from above",
    "brightness": RATIO + "a brighter picture",
    "background": RATIO + "a brighter background",
}
GENDERS = {"male": 1.0, "female": -1.0}
SAME = ("roll", "eyes_open_left", "eyes_open_right")  # aligned away, or parts of another measure
FREE = {  # what goes along with a direction by its very meaning
    "brightness": ("skin", "background", "hair", "contrast"),
    "smile": ("mouth_open", "mouth_width"),
    "mouth_open": ("mouth_width",),
    "yaw": ("gaze_x",),  # whoever turns the head for a portrait keeps looking into the camera
    "pitch": ("gaze_y",),
}


def main() -> None:
    options = parse()
    torch.set_grad_enabled(False)
    loaded = weights.load(options.generator)
    generator: Any = loaded.model
    measure = Measures(*(weights.load(name).model for name in (options.mesh, options.identity)))
    measure.learn(options.data / "portraits128.zip", generator.config.size)
    found = discover.survey(generator, measure, count=options.count, progress=progress("survey"))
    print(f"{len(found.codes)} samples; strangers are {found.strangers():.2f} apart; deviations:")
    print("  " + ", ".join(f"{name} {value:.3g}" for name, value in found.spread().items()))
    if options.check:
        known = load_directions(options.check, options.generator, loaded.hash).values()
        print(*(line(discover.check(generator, measure, direction, found)) for direction in known), sep="\n")
        return
    about = {"model": options.generator, "model_hash": loaded.hash}
    shipped = [*supervised(generator, measure, found, about, options.names), *unsupervised(generator, measure, found, about)]
    options.out.mkdir(parents=True, exist_ok=True)
    path = save_directions(options.out / f"{options.generator}-directions.safetensors", shipped, {"samples": len(found.codes)})
    for direction in shipped:
        write_image(sheet(generator, direction), options.out / f"{direction.name}.png")
    print(f"{len(shipped)} directions in {path}, a sheet of each beside it")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--generator", default="limn-portraits64", help="name or file")
    parser.add_argument("--mesh", default="limn-mesh")
    parser.add_argument("--identity", default="limn-identity")
    parser.add_argument("--count", type=int, default=3000, help="samples of the survey")
    parser.add_argument("--names", nargs="*", default=list(UNITS), choices=list(UNITS), help="which directions")
    parser.add_argument("--out", type=Path, default=Path("directions"))
    parser.add_argument("--check", type=Path, help="measure the directions of this bundle and stop")
    return parser.parse_args()


@dataclass
class Reading:
    """A number read from standardised features by a linear fit."""

    name: str
    mean: Tensor
    scale: Tensor
    weights: Tensor
    offset: float

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale @ self.weights + self.offset


class Measures:
    """Everything that can be measured in pictures (N, 3, H, W): values by name, and who it is."""

    def __init__(self, mesh: Any, identity: Any) -> None:
        self.mesh, self.identity = mesh, identity
        self.readings: list[Reading] = []

    def __call__(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        large = F.interpolate(images, size=(128, 128), mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
        points = self.mesh.landmarks(large).float()
        shapes = [measures(one.cpu().numpy()) for one in points]
        values = {name: torch.tensor([float(shape[name]) for shape in shapes]) for name in shapes[0] if name not in SAME}
        who = self.identity.embed(images)
        features = self.features(images, who)
        return values | appearance(large, points) | {reading.name: reading(features) for reading in self.readings}, who

    def features(self, images: Tensor, who: Tensor) -> Tensor:
        """What age and gender are read from: the identity network's pooled maps and its embedding."""
        return torch.cat([self.identity.moments(images), who], 1)

    def learn(self, path: Path, size: int) -> None:
        """Fit age and gender to the labelled portraits, and say how well they are read off people that were left out."""
        rows, pictures = [], []
        for row, data in portraits.entries(path):
            if age_of(row) is not None:
                rows.append(row)
                pictures.append(portraits.decode(data, size, row["file"]))
        features = torch.cat([self.features(part, self.identity.embed(part)) for part in portraits.tensor(np.stack(pictures)).split(64)])
        ages = torch.tensor([age_of(row) or 0.0 for row in rows])
        self.readings.append(read_off("age", features, ages, rows))
        chosen = [index for index, row in enumerate(rows) if row["gender"] in GENDERS]
        genders = torch.tensor([GENDERS[rows[index]["gender"]] for index in chosen])
        self.readings.append(read_off("gender", features[chosen], genders, [rows[index] for index in chosen]))


def age_of(row: dict[str, str]) -> float | None:
    """Age in years: as labelled, or for the portraits of the 113th Congress, taken about 2013, by the year of birth."""
    if row.get("age", "").isdecimal():
        return float(row["age"])
    return 2013.0 - float(row["born"]) if row.get("set") == "congress113_gray" and row.get("born", "").isdecimal() else None


def read_off(name: str, features: Tensor, values: Tensor, rows: list[dict[str, str]]) -> Reading:
    """Fit a reading within each set of pictures, so that it does not learn to tell the sets (young and grey-haired ones) apart."""
    people = [row["identity"] for row in rows]
    x, v = features.clone(), values.clone()
    for kind in {row["set"] for row in rows}:
        inside = torch.tensor([row["set"] == kind for row in rows])
        x[inside] -= x[inside].mean(0)
        v[inside] -= v[inside].mean()
    ridge, held = choose_ridge(x, v, people)
    agreement = float(torch.corrcoef(torch.stack([held, v]))[0, 1])
    print(f"{name}: correlation {agreement:.2f} on people left out, within sets ({len(rows)} portraits, {len(set(people))} people)")
    return replace(fit(name, x, v, ridge), mean=features.mean(0), offset=float(values.mean()))


def fit(name: str, features: Tensor, values: Tensor, ridge: float) -> Reading:
    mean, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    x = ((features - mean) / scale).double()
    gram = x @ x.T + ridge * len(x) * torch.eye(len(x), dtype=torch.float64)
    weighted = x.T @ torch.linalg.solve(gram, (values - values.mean()).double())
    return Reading(name, mean, scale, weighted.float(), float(values.mean()))


def choose_ridge(features: Tensor, values: Tensor, people: list[str], folds: int = 8) -> tuple[float, Tensor]:
    """Return the ridge that reads people left out best, and those readings."""
    numbers = {person: index for index, person in enumerate(sorted(set(people)))}
    fold = torch.tensor([numbers[person] % folds for person in people])
    tried = []
    for ridge in (0.1, 0.3, 1.0, 3.0, 10.0):
        held = torch.zeros(len(values))
        for index in range(folds):
            held[fold == index] = fit("", features[fold != index], values[fold != index], ridge)(features[fold == index])
        tried.append((float((held - values).square().mean()), ridge, held))
    _, ridge, held = min(tried, key=lambda row: row[0])
    return ridge, held


def supervised(generator: Any, measure: Measures, found: Survey, about: dict[str, str], names: list[str]) -> list[Direction]:
    """Find and check each named direction; return those that move what they name most."""
    last = generator.num_ws
    layers = [None, range(min(4, last)), range(2, min(7, last)), range(min(5, last - 2), last)]
    shipped = []
    for name in names:
        if name not in found.values:
            print(f"{name}: not measured")
            continue
        held = {"free": FREE.get(name, ()), "layers": layers, "unit": UNITS[name], **about}
        direction = discover.best(generator, measure, name, found, **held)
        moved = replace(discover.check(generator, measure, direction, found), free=FREE.get(name, ()))
        print(line(moved), f"  hold {direction.source['hold']:g}, layers {direction.layers or 'all'}", flush=True)
        checked = {"method": "supervised", "moves": rounded(moved), "identity": round(moved.identity, 3), **direction.source}
        if moved.selective:
            shipped.append(replace(discover.calibrate(direction, moved), source=checked))
    return shipped


def unsupervised(generator: Any, measure: Measures, found: Survey, about: dict[str, str], count: int = 6) -> list[Direction]:
    """The widest principal components of W, and the strongest factors of the style weights, with what they happen to move."""
    basis = factor.pca(found.codes, count)
    rows, _ = factor.factorise(factor.style_weights(generator))
    length = float((found.codes - found.codes.mean(0)).square().sum(1).mean().sqrt())
    plain = [Direction(f"pca{i}", basis.components[i] * basis.stdev[i], unit=factor_unit("component"), **about) for i in range(count)]
    plain += [Direction(f"sefa{i}", rows[i] * 0.3 * length, unit=factor_unit("factor"), **about) for i in range(count)]
    shipped = []
    for direction in plain:
        moved = discover.check(generator, measure, replace(direction, name=next(iter(found.values))), found, count=48)
        moved = replace(moved, name=direction.name, changes={direction.name: 0.0, **moved.changes})
        print(line(moved), flush=True)
        moves = {name: change for name, change in rounded(moved).items() if name != direction.name}
        method = "principal component of W" if direction.name.startswith("pca") else "closed-form factorisation"
        shipped.append(replace(direction, source={"method": method, "moves": moves, "identity": round(moved.identity, 3)}))
    return shipped


def factor_unit(kind: str) -> str:
    return f"one standard deviation of the {kind}" if kind == "component" else "three tenths of the codes' mean distance from their middle"


def rounded(moved: Moved) -> dict[str, float]:
    return {name: round(change, 3) for name, change in sorted(moved.changes.items(), key=lambda item: -abs(item[1]))}


def line(moved: Moved) -> str:
    """One line: how far the named measure moves, what moves most beside it, how far the identity, and the verdict."""
    other, change = moved.other
    verdict = "moves what it names most" if moved.selective else "not selective"
    own = moved.changes[moved.name]
    return f"{moved.name:<12} {own:+.2f} deviations; next {other} {change:+.2f}; identity {moved.identity:.2f} of a stranger; {verdict}"


def sheet(generator: Any, direction: Direction, faces: int = 6) -> Any:
    """Rows of faces, each at strengths -3 to 3."""
    codes = w_to_w_plus(generator, discover.codes_of(generator, range(faces), 0.7))
    steps = [generator.synthesis(move(codes, direction, strength)).clamp(-1, 1) for strength in (-3, -2, -1, 0, 1, 2, 3)]
    return grid([to_image(step[row]) for row in range(faces) for step in steps], columns=len(steps))


def progress(what: str) -> discover.Progress:
    return lambda done, count: print(f"\r{what} {done}/{count}", end="\n" if done == count else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
