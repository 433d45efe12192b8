"""Does a recipe learn? Train it from the command line and print its figures before and after.

    python benchmarks/learning.py SYSTEM DATA [--out RUN] [--steps N] [--preset P]

DATA is the folder that holds the data sets; `recipes/SYSTEM.py` beside this file says which of them the recipe takes, with which
options, and measures a trained model on what was held out. A run found in RUN goes on; the figures land in RUN/figures.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    arguments = parsed()
    recipe = importlib.import_module(f"recipes.{arguments.system.replace('-', '_')}")
    data, out = arguments.data / recipe.DATA, arguments.out or Path("runs") / arguments.system
    command = [sys.executable, "-m", "limn", "train", arguments.system, str(data), "--out", str(out)]
    command += ["--preset", arguments.preset or recipe.PRESET, *recipe.OPTIONS]
    before, figures = out / "before.safetensors", {}
    if not before.exists():
        first = out / "untrained"  # a run of its own, or its one step would count as all that was asked for
        one = [str(first) if word == str(out) else word for word in command]
        subprocess.run([*one, "--steps", "1"], check=True)  # one step changes nothing that can be measured
        shutil.copyfile(first / "model.safetensors", before)
    began = time.monotonic()
    subprocess.run([*command, *(["--steps", str(arguments.steps)] if arguments.steps else [])], check=True)
    print(f"trained for {time.monotonic() - began:.0f} s in this call")
    for name, model in (("before", before), ("after", out / "model.safetensors")):
        figures[name] = recipe.measure(model, data)
        print(f"{name:<7}", "  ".join(f"{key} {value:.4g}" for key, value in figures[name].items()), flush=True)
    report: dict[str, Any] = {"command": " ".join(command[2:]), **figures}
    (out / "figures.json").write_text(json.dumps(report, indent=1) + "\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the run; runs/SYSTEM if not given")
    parser.add_argument("--steps", type=int, default=0, help="steps in all; 0: the preset's")
    parser.add_argument("--preset", default="", help="another preset than the recipe's")
    return parser.parse_args()


if __name__ == "__main__":
    main()
