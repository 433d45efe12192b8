"""`limn doctor`: what runs here, on what, and if not, why not."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from limn.tasks.portrait import ENCODER, GENERATOR, IDENTITY, MESH

DETECTOR = "limn-detector"
PACKAGES = (
    "torch",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "av",
    "safetensors",
    "accelerate",
    "typer",
    "rich",
    "c2pa-python",
    "pillow-heif",
)
BUNDLE = "-directions"  # a model's directions lie beside it, under its name and this
NEEDS: Mapping[str, tuple[str, ...]] = {
    "generate": (GENERATOR,),
    "invert": (GENERATOR, ENCODER, DETECTOR, MESH, IDENTITY),
    "edit": (GENERATOR, f"{GENERATOR}{BUNDLE}", ENCODER, DETECTOR, MESH),
    "blend": (GENERATOR, ENCODER, DETECTOR, MESH, IDENTITY),
}
LITTLE_MEMORY, LITTLE_DISK = 2.0, 1.0  # GB


@dataclass(frozen=True)
class BoxedModel:
    """One model file with a name."""

    name: str
    system: str
    megabytes: float
    hash: str
    where: str


@dataclass(frozen=True)
class Diagnosis:
    """What was found."""

    limn: str
    python: str
    system: str
    processor: str
    threads: int
    precision: str  # of fast inference here
    memory: str
    disk: str
    gpu: str
    device: str  # that verbs use unless told otherwise
    versions: Mapping[str, str]
    models: tuple[BoxedModel, ...]
    verbs: Mapping[str, str]
    problems: tuple[str, ...]


def doctor() -> Diagnosis:
    """Say what runs here and on what: processor, memory, GPU or exactly why none, versions, models, what each verb uses."""
    import torch

    from limn import __version__, device
    from limn.weights.store import store

    chosen, memory, folder = device.choose(), _memory(), _existing(store())
    free = shutil.disk_usage(folder).free / 1e9
    models = _models()
    missing = {verb: [name for name in names if name not in {model.name for model in models}] for verb, names in NEEDS.items()}
    return Diagnosis(
        limn=__version__,
        python=platform.python_version(),
        system=platform.platform(terse=True),
        processor=_processor(),
        threads=torch.get_num_threads(),
        precision=_precision(device.fast_dtype(chosen.type), chosen.type),
        memory=f"{memory[0]:.1f} GB, {memory[1]:.1f} GB of it free" if memory else "not known",
        disk=f"{free:.1f} GB free in {folder}",
        gpu=_gpu(device.why_no_cuda()),
        device=str(chosen),
        versions={name: _version(name) for name in PACKAGES},
        models=models,
        verbs={verb: _uses(verb, missing[verb], str(chosen)) for verb in NEEDS},
        problems=_problems(missing, memory, free),
    )


def _models() -> tuple[BoxedModel, ...]:
    """List the model files that have a name here, broken ones too."""
    from limn.errors import LimnError
    from limn.weights.native import read_header
    from limn.weights.store import BOX, names, store

    bundles = {path.stem: path for folder in (store(), BOX) for path in folder.glob(f"*{BUNDLE}.safetensors")}
    found = []
    for name, path in sorted((names() | bundles).items()):
        where = "in the box" if path.parent == BOX else str(path.parent)
        system, digest = "directions", ""
        if not name.endswith(BUNDLE):
            try:
                header = read_header(path)
                system = f"{header.system} {header.part}" if header else "not limn's format"
                digest = header.hashes[header.part][:12] if header else ""
            except LimnError as error:
                system = f"broken: {error}"
        found.append(BoxedModel(name, system, round(path.stat().st_size / 1e6, 1), digest, where))
    return tuple(found)


def _uses(verb: str, missing: list[str], device: str) -> str:
    return f"cannot run: {', '.join(missing)} missing" if missing else f"{', '.join(NEEDS[verb])} on {device}"


def _problems(missing: Mapping[str, list[str]], memory: tuple[float, float] | None, free: float) -> tuple[str, ...]:
    found = []
    absent = sorted({name for names in missing.values() for name in names})
    if absent:
        found.append(f"{', '.join(absent)} missing: install limn again, or `limn models import FILE`")
    if memory and memory[1] < LITTLE_MEMORY:
        found.append(f"only {memory[1]:.1f} GB of memory are free: close other programs before large photos")
    if free < LITTLE_DISK:
        found.append(f"only {free:.1f} GB of disk are free: results may not fit")
    return tuple(found)


def _precision(dtype: object, kind: str) -> str:
    name = str(dtype).removeprefix("torch.")
    return f"{name} is native here" if name != "float32" else f"float32: this {kind} has no faster number format"


def _gpu(reason: str) -> str:
    import torch

    if torch.backends.mps.is_available():
        return "Apple GPU"
    if reason:
        return f"none: {reason}"
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{gpu.name} with {gpu.total_memory / 1e9:.0f} GB" for gpu in found)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} threads"


def _memory() -> tuple[float, float] | None:
    """Return the whole and the free memory in GB, where the system says it."""
    info = Path("/proc/meminfo")
    if info.exists():
        sizes = {line.split(":")[0]: float(line.split()[1]) for line in info.read_text(encoding="utf-8").splitlines()}
        return sizes["MemTotal"] / 1e6, sizes["MemAvailable"] / 1e6
    try:
        page = os.sysconf("SC_PAGE_SIZE") / 1e9
        return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, OSError, ValueError):
        return None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())
