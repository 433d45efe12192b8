"""`limn train`: any system on one's own data."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limn.errors import InputError


@dataclass(frozen=True)
class Trained:
    """What a run did."""

    system: str
    preset: str
    steps: int
    images: int
    seconds: float
    model: Path


def train(
    system: str,
    data: Path,
    *,
    out: Path,
    preset: str,
    steps: int = 0,
    batch: int = 0,
    seed: int = 0,
    where: list[str] | None = None,
    init: Path | None = None,
    set: list[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    decay: str = "none",
    warmup: int = 0,
) -> Trained:
    """Train SYSTEM on DATA (a folder or zip), writing checkpoints, samples and log into OUT; a run found there goes on.

    `steps` and `batch` 0 take the preset's. `where` selects by labels.csv (era=modern, chroma>2). `init` starts from the
    weights of another model that fit by name and shape, at another resolution too. `set` changes the objective (gamma=0.5).
    """
    import torch

    from limn import device as devices
    from limn.models import system as find
    from limn.training import loop
    from limn.training.datasets import open_dataset

    began, module = time.monotonic(), find(system)
    devices.keep_memory()
    chosen = module.PRESETS.get(preset)
    if chosen is None:
        raise InputError(f"{system} has no preset {preset!r}; it has {', '.join(module.PRESETS)}")
    place = devices.choose(device)
    dtype = {"auto": devices.fast_dtype(place.type), "float32": torch.float32, "bfloat16": torch.bfloat16}.get(precision)
    if dtype is None:
        raise InputError(f"precision {precision!r} is not known: use auto, float32 or bfloat16")
    options = frozen({**chosen.objective, **settings_of(set or [])}, place)
    with torch.random.fork_rng(devices=[]):  # the layers of PyTorch draw their first weights from the global generator
        torch.manual_seed(seed)
        objective = module.objective(chosen.config, **options)
    config = getattr(objective, "config", chosen.config)
    out.mkdir(parents=True, exist_ok=True)
    if init is not None:
        adopt_matching(objective.networks, init)
    settings = loop.Settings(
        out, steps or chosen.steps, batch or chosen.batch, seed, chosen.ema_kimg, place, dtype, decay=decay, warmup=warmup
    )
    run = loop.start(settings, objective, saver(system, config))
    dataset = open_dataset(chosen.data, data, config, True, **({"where": where} if where else {}))
    describe(out, system, preset, config, settings, len(dataset), str(data), where or [])
    loop.train(run, dataset, print_line)
    return Trained(system, preset, run.step, run.step * settings.batch, time.monotonic() - began, out / "model.safetensors")


FROZEN = ("generator", "features", "identity")  # settings of an objective that name a trained model


def frozen(options: dict[str, Any], place: Any) -> dict[str, Any]:
    """Load the models that an objective's settings name (in the box, in the store, or by path), to be used but not trained."""
    from limn.weights import load

    names = {key: value for key, value in options.items() if key in FROZEN and isinstance(value, str)}
    return options | {key: load(name, device=place).model.eval().requires_grad_(False) for key, name in names.items()}


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """Turn `name=value` into keyword arguments; values are read as JSON, else as text."""
    read: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise InputError(f"{pair!r} is not of the form name=value")
        try:
            read[name] = json.loads(value)
        except json.JSONDecodeError:
            read[name] = value
    return read


def saver(system: str, config: Any) -> Any:
    """Return what writes a run's model file."""
    from limn.weights import save

    def write(path: Path, networks: Any, facts: dict[str, Any]) -> None:
        save(path, dict(networks.items()), system, config=config, meta={"training": facts})

    return write


def adopt_matching(networks: Any, path: Path) -> None:
    """Copy every entry of a run's or model's state whose name and shape fit; new ToRGB layers begin silent."""
    import torch

    from limn.training import checkpoint

    parts, _ = checkpoint.read(path)
    theirs, ours = parts["networks"], networks.state_dict()
    fit = {name: value for name, value in theirs.items() if name in ours and ours[name].shape == value.shape}
    silent = {name: torch.zeros_like(v) for name, v in ours.items() if name not in fit and name.endswith("torgb.weight")}
    networks.load_state_dict({**ours, **fit, **silent})


def describe(out: Path, system: str, preset: str, config: Any, settings: Any, count: int, data: str, where: list[str]) -> None:
    """Write run.json: everything needed to repeat the run."""
    import torch

    from limn import __version__

    facts = {
        "limn": __version__,
        "torch": torch.__version__,
        "system": system,
        "preset": preset,
        "config": dataclasses.asdict(config),
        "steps": settings.steps,
        "batch": settings.batch,
        "seed": settings.seed,
        "data": data,
        "where": where,
        "pictures": count,
    }
    (out / "run.json").write_text(json.dumps(facts, indent=1) + "\n")


def print_line(line: dict[str, float]) -> None:
    """Print one line of progress."""
    from rich import print as show

    rest = {k: v for k, v in line.items() if k not in ("step", "images", "images_per_second", "seconds")}
    figures = "  ".join(f"{name} {value:.3f}" for name, value in rest.items())
    show(f"{line['step']:>8,.0f}  {line['images'] / 1000:,.1f} kimg  {line['images_per_second']:.1f}/s  {figures}")
