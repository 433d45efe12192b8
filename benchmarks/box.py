"""Make a model of the box anew, from the shared data sets to the file.

    python benchmarks/box.py NAME DATA --out FOLDER [--steps N]

DATA is the folder that holds the data sets. Every leg is a `limn train` command that begins with the state of the one before, or names it
where it says BEFORE; a leg found in FOLDER goes on or is passed over. The last one's model is finished (batch norms folded, half
precision) as FOLDER/NAME.safetensors. The recipes are what the models were made with, put in order; their cards say where the history of a
model was longer. `--steps` shortens every leg, to see that a recipe runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limn.models.perception import limn_detector, limn_mesh, limn_parser
from limn.weights import load, save

FREE = "Apache-2.0; trained on portraits under CC BY 3.0, CC BY 4.0 and in the public domain"
MODERN = ("--where", "era=modern", "--where", "chroma>2")
SHARP = (*MODERN, "--where", "fill_frac<0.08")


@dataclass(frozen=True)
class Recipe:
    """How one file comes about."""

    system: str
    part: str
    data: str  # within DATA; "" for all of it
    legs: tuple[tuple[str, ...], ...]  # options of each command
    finish: Callable[[Any], Any] = lambda network: network


RECIPES = {
    "limn-portraits64": Recipe(
        "stylegan2",
        "generator",
        "portraits128.zip",
        (
            ("--preset", "portraits32", "--steps", "1171", *SHARP),
            ("--preset", "portraits32", "--steps", "2407", "--batch", "16", *SHARP),
            ("--preset", "portraits64", "--steps", "4400", "--batch", "16", "--decay", "end", *SHARP),
        ),
    ),
    "limn-encoder64": Recipe(
        "e4e", "encoder", "portraits128.zip", (("--preset", "portraits64", "--steps", "2200", "--decay", "cosine", *MODERN),)
    ),
    "limn-detector": Recipe(
        "limn-detector",
        "detector",
        "",
        (("--preset", "scenes"), ("--preset", "points")),
        lambda network: limn_detector.fold(network, threshold=0.68),
    ),
    "limn-mesh": Recipe("limn-mesh", "mesh", "", (("--preset", "portraits128"),), limn_mesh.fold),
    "limn-parser": Recipe(
        "limn-parser",
        "parser",
        "",
        (
            ("--preset", "portraits128", "--steps", "500", "--warmup", "50"),
            ("--preset", "portraits128", "--steps", "1000", "--warmup", "50", "--read", "prior=BEFORE/model.safetensors"),
        ),
        limn_parser.fold,
    ),
    "limn-restorer128": Recipe(
        "gpen",
        "generator",
        "portraits128.zip",
        (("--preset", "portraits128", "--steps", "10000", "--set", "perceptual=0", "--set", "identical=0"),),
    ),
    "limn-inpaint64": Recipe("deepfill-v2", "generator", "portraits128.zip", (("--preset", "portraits64", *MODERN),)),
    "limn-swapper64": Recipe("simswap", "generator", "portraits128.zip", (("--preset", "portraits64"),)),
    "limn-identity": Recipe("limn-identity", "identity", "portraits128.zip", (("--preset", "portraits64"),)),
}


def main() -> None:
    arguments = parsed()
    recipe, out = RECIPES[arguments.name], arguments.out
    before: list[str] = []
    for number, leg in enumerate(recipe.legs, 1):
        run = out / f"{arguments.name}-{number}"
        command = [
            sys.executable,
            "-m",
            "limn",
            "train",
            recipe.system,
            str(arguments.data / recipe.data),
            "--out",
            str(run),
            *leg,
            *before,
        ]
        subprocess.run([*command, *(["--steps", str(arguments.steps)] if arguments.steps else [])], check=True)
        before = ["--init", str(run)]
    loaded = load(run / "model.safetensors", part=recipe.part)
    meta = {**loaded.meta, "licence": FREE, "origin": f"benchmarks/box.py {arguments.name}"}
    network = recipe.finish(loaded.model)
    made = save(out / f"{arguments.name}.safetensors", network, recipe.system, recipe.part, network.config, meta, half=True)
    print(f"{made}: {made.stat().st_size / 1e6:.1f} MB, {load(made).hash[:12]}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
