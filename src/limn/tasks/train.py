"""`limn train`: any system on one's own data."""

from __future__ import annotations

import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from limn.errors import InputError, TrainingError

LIVE = 2.0  # seconds between two looks of the live page
Decay = Literal["preset", "none", "linear", "half", "end", "cosine"]


@dataclass(frozen=True)
class Trained:
    """What a run did."""

    system: str
    preset: str
    steps: int
    images: int
    seconds: float
    model: Path
    finished: bool  # False where it was interrupted: the same command goes on


def train(
    system: str,
    data: Path,
    *,
    out: Path,
    preset: Annotated[str, "A recipe of the system; without one, that of the run in OUT, else `auto` or the first."] = "",
    steps: Annotated[int, "Steps in all; 0: the preset's."] = 0,
    batch: Annotated[int, "Items per step, of all processes together; 0: the preset's."] = 0,
    seed: int = 0,
    resume: Annotated[bool, "Go on with the run in OUT; with --no-resume a run found there is an error."] = True,
    where: Annotated[list[str] | None, "Select by labels.csv: era=modern, chroma>2."] = None,
    init: Annotated[Path | None, "Begin with these weights: a run, a model's name or file, or a published checkpoint."] = None,
    set: Annotated[list[str] | None, "Change a setting of the objective: gamma=0.5, freeze=2."] = None,
    size: Annotated[int, "Pixels, for the preset `auto`; 0: those of the data."] = 0,
    device: str = "auto",
    precision: Annotated[Literal["auto", "float32", "bfloat16"], "auto: bfloat16 where it is native."] = "auto",
    read: Annotated[list[str] | None, "Change how the data is read: skip_bad=true, memory=4 (GB), jitter=30."] = None,
    decay: Annotated[Decay, "Course of the learning rate."] = "preset",
    warmup: Annotated[int | None, "Steps in which the learning rate rises; the preset's if not given."] = None,
    parallel: Annotated[
        Literal["ddp", "fsdp"], "On several devices: ddp keeps all on each; fsdp spreads weights, averages and optimisers over them."
    ] = "ddp",
    accumulate: Annotated[int, "Cut the batch into so many parts, one after the other, to save memory."] = 1,
    save_every: Annotated[float, "Seconds between checkpoints."] = 300.0,
    save_steps: Annotated[int, "Steps between checkpoints; 0: by time alone."] = 0,
    sample_every: Annotated[int, "Steps between sample sheets."] = 200,
) -> Trained:
    """Train SYSTEM on DATA (a folder or zip), writing checkpoints, samples and log into OUT; a run found there goes on.

    OUT/model.safetensors is at every moment a whole model that the other verbs use. On several devices or machines, start it with
    `torchrun --nproc_per_node N -m limn train ...` or `accelerate launch`.
    """
    from limn.models import system as find
    from limn.training import loop, processes, record
    from limn.training.datasets import open_dataset

    began, module = time.monotonic(), find(system)
    group = processes.join(place_of(device))
    before = continued(out, resume)
    batch, steps, init = batch or before.get("batch", 0), steps or before.get("steps", 0), None if before else init
    name, chosen = preset_of(module, system, preset or before.get("preset", ""), size or before.get("size", 0), data, batch, group.count)
    record.refuse_changes(out, before, {"system": system, "preset": name})
    changes, tuned = settings_of(set or []), str(before.get("init") or init or "")
    objective, config, beside, note = built(module, system, chosen, changes, seed, group.device, init, before)
    pace: dict[str, Any] = {"accumulate": accumulate, "decay": chosen.decay if decay == "preset" else decay}
    pace |= {"warmup": chosen.warmup if warmup is None else warmup}
    pace |= {"sharded": parallel == "fsdp", "save_every": save_every, "save_steps": save_steps, "sample_every": sample_every}
    settings = settings_for(module, chosen, out, steps or chosen.steps, batch or chosen.batch, seed, group, precision, tuned, pace)
    reading = {**chosen.reading, **settings_of(read or []), **({"where": where} if where else {})}
    facts = described(system, name, config, {**chosen.objective, **changes}, settings, reading) | {"beside": beside}
    record.refuse_changes(out, before, facts)
    dataset = open_dataset(chosen.data, data, config, True, **reading)
    facts |= {"init": tuned, "data": str(data), "pictures": len(dataset), "data_hash": record.data_hash(data)}
    run = loop.start(settings, objective, saver(system, config, beside))
    finished, step = follow(run, dataset, f"{system} {name}", facts, before, note), run.step
    run.layout.close()
    del run, objective  # which hold the group of processes too where they are spread over it
    group.leave()
    return Trained(system, name, step, step * settings.batch, time.monotonic() - began, out / "model.safetensors", finished)


def place_of(device: str) -> Any:
    """The device by name, with memory kept for the steps to come."""
    from limn import device as devices

    devices.keep_memory()
    return devices.choose(device)


def continued(out: Path, resume: bool) -> dict[str, Any]:
    """The record of the run in `out`, empty where there is none; TrainingError where there is one that must not go on."""
    from limn.training import record

    before = record.previous(out)
    if before is not None and not resume:
        raise TrainingError(f"{out} holds a run already: give another --out, or leave --no-resume away to go on with it")
    return before or {}


def settings_for(
    module: Any, chosen: Any, out: Path, steps: int, batch: int, seed: int, group: Any, precision: str, tuned: str, pace: dict[str, Any]
) -> Any:
    """How the run proceeds. Fine-tuning (`tuned`) leaves out the ramp of the average, as the published trainer does."""
    from limn.training import loop, page

    return loop.Settings(
        out,
        steps,
        batch,
        seed,
        ema_kimg=chosen.ema_kimg,
        ema_ramp=0.0 if tuned else chosen.ema_ramp,
        processes=group,
        dtype=precision_of(precision, group.device.type),
        report_every=page.interval(),
        generates=module.CARD.chapter == "generation",
        **pace,
    )


def follow(run: Any, dataset: Any, title: str, facts: dict[str, Any], before: dict[str, Any], note: str) -> bool:
    """Write the record, train under the page, and return whether the end was reached."""
    from limn.training import loop, page, processes, record

    group, warning, alone = run.settings.processes, "", ""
    if run.settings.sharded and group.count == 1:
        alone = "--parallel fsdp has one process to spread over: start it with `torchrun --nproc_per_node N -m limn train ...`"
    if before.get("data_hash", facts["data_hash"]) != facts["data_hash"]:
        warning = f"{facts['data']} is not what it was when this run began: the order of its items is another"
    if group.first:
        record.prepare(run.settings.out, facts, before, run.step, group.count, str(group.device))
    with page.shown(title, run.settings.steps) as report, processes.together(group):
        for kind, said in (("note", note), ("warning", warning), ("warning", alone)):
            if said and group.first:
                report({"step": run.step, kind: said})
        return loop.train(run, dataset, report)


def preset_of(module: Any, system: str, name: str, size: int, data: Path, batch: int, devices: int) -> tuple[str, Any]:
    """Return a preset's name and the preset; `auto` is made for the resolution of the data, the batch and the number of devices."""
    presets = getattr(module, "PRESETS", {})
    if not presets:
        raise InputError(f"{system} cannot be trained here: it has no recipe; see `limn models list`")
    name = name or ("auto" if "auto" in presets else next(iter(presets)))
    if name not in presets:
        raise InputError(f"{system} has no preset {name!r}; it has {', '.join(presets)}")
    if name == "auto":
        return name, module.auto(size or resolution(data), batch, devices)
    return name, presets[name]


def resolution(data: Path) -> int:
    """The largest power of two that the first readable picture of a folder or zip fills; InputError where there is none."""
    from PIL import Image

    if data.is_dir():
        opened: Any = (file.open("rb") for file in sorted(data.rglob("*")) if file.is_file())
    elif zipfile.is_zipfile(data):
        archive = zipfile.ZipFile(data)
        opened = (archive.open(name) for name in sorted(archive.namelist()) if not name.endswith("/"))
    else:
        raise InputError(f"{data}: is neither a folder nor a zip of pictures")
    for file in opened:
        try:
            with file, Image.open(file) as picture:
                return 1 << (min(picture.size).bit_length() - 1)
        except OSError:
            continue
    raise InputError(f"{data}: holds no picture that can be read")


def precision_of(name: str, device_type: str) -> Any:
    """The dtype of the arithmetic. `auto` leaves float16 alone: without scaling of the loss its small gradients would vanish."""
    import torch

    from limn.device import fast_dtype

    if name == "auto":
        return torch.bfloat16 if fast_dtype(device_type) == torch.bfloat16 else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise InputError(f"precision {name!r} is not known: use auto, float32 or bfloat16")
    return known[name]


def built(
    module: Any, system: str, chosen: Any, changes: dict[str, Any], seed: int, place: Any, init: Path | None, before: dict[str, Any]
) -> tuple[Any, Any, dict[str, str], str]:
    """Return the objective, its configuration, the hashes of the models it uses, and what is to be said of where its weights come from."""

    from limn.models.records import drawing
    from limn.training import adopt
    from limn.weights.native import config_from

    (options, beside), kind, source = frozen({**chosen.objective, **changes}, place), type(chosen.config), None
    config = config_from(kind, before["config"], where="run.json") if "config" in before else chosen.config
    if init is not None:
        source = adopt.read(init, system, list(module.NETWORKS), kind)
        config = adopt.architecture(config, source.config)
    with drawing(seed):
        try:
            objective = module.objective(config, **options)
        except TypeError as error:
            raise InputError(f"{system}: {' '.join(str(error).split())}; see `limn models show {system}` for its settings") from error
    note = ""
    if source is not None:
        note = adopt.adopt(objective.networks, source, objective.averaged)
        if hasattr(objective, "grow"):
            objective.grow(source.tensors)
    return objective, getattr(objective, "config", config), beside, note


FROZEN = ("generator", "features", "identity", "landmarks")  # settings of an objective that name a trained model


def frozen(options: dict[str, Any], place: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Load the models that an objective's settings name (in the box, in the store, or by path); the second result says name and hash."""
    from limn.weights import load

    names = {key: value for key, value in options.items() if key in FROZEN and isinstance(value, str)}
    loaded = {key: load(name, device=place) for key, name in names.items()}
    models = {key: each.model.eval().requires_grad_(False) for key, each in loaded.items()}
    return options | models, {key: f"{names[key]} {each.hash}" for key, each in loaded.items()}


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


def saver(system: str, config: Any, beside: dict[str, str]) -> Any:
    """Return what writes a run's model file, which tells the frozen models that it was trained `beside`."""
    from limn.weights import save

    def write(path: Path, networks: Any, facts: dict[str, Any]) -> None:
        save(path, dict(networks.items()), system, config=config, meta={"training": facts | beside})

    return write


def described(system: str, preset: str, config: Any, objective: dict[str, Any], settings: Any, reading: dict[str, Any]) -> dict[str, Any]:
    """Everything that a repetition of the run needs, as JSON holds it."""
    from limn.training import record

    return {
        "versions": record.versions(),
        "system": system,
        "preset": preset,
        "config": record.plain(config),
        "objective": record.plain(objective),
        "precision": str(settings.dtype).removeprefix("torch."),
        "reading": record.plain({name: value for name, value in reading.items() if name != "memory"}),  # which changes no batch
        "size": getattr(config, "size", 0),
        "parts": settings.parts,
        "parallel": "fsdp" if settings.sharded else "ddp",
        **{name: getattr(settings, name) for name in ("steps", "batch", "seed", "accumulate", "ema_kimg", "ema_ramp", "decay", "warmup")},
    }
