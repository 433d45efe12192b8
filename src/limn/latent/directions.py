"""Directions: what to add to a code so that the picture changes in one nameable way. Bundles of ours, and published files.

Shen et al., InterFaceGAN (arXiv 1907.10786); Härkönen et al., GANSpace (arXiv 2004.02546); Shen and Zhou, SeFa (arXiv 2007.06600).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from limn.errors import InputError, WeightsError
from limn.latent.files import FORMAT, check_model, read_safetensors
from limn.latent.spaces import w_to_w_plus
from limn.media.files import atomic
from limn.models.generation.stylegan2 import Generator

KEY = "limn_directions"
SIGMA = "one standard deviation of the component"
LAYERS = 32  # the most layers a published W+ direction can have (18 at 1024 pixels)


@dataclass(frozen=True)
class Direction:
    """One nameable change of a code in W or W+."""

    name: str
    vector: Tensor  # (w_dim,) or (num_ws, w_dim): what strength +1 adds
    unit: str = ""  # what strength +1 means, in words
    layers: tuple[int, ...] | None = None  # the layers of W+ that it moves; None: all
    space: Literal["w", "p"] = "w"  # P is W before the mapping's last leaky ReLU (II2S, arXiv 2012.09036): Barbershop's bases
    model: str = ""  # the generator it was found in; "" where the file does not say
    model_hash: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)  # plain values: method, licence, what a check found


def move(w: Tensor, direction: Direction, strength: float) -> Tensor:
    """Add strength times the direction to W (N, w_dim) or W+ (N, num_ws, w_dim); a direction by layers needs W+."""
    if w.ndim == 2 and (direction.vector.ndim > 1 or direction.layers is not None):
        raise InputError(f"the direction {direction.name!r} moves single layers: bring the code to W+ first")
    change = strength * direction.vector.to(w)
    if direction.layers is not None:
        mask = torch.zeros(w.shape[1], 1, dtype=w.dtype, device=w.device)
        mask[list(direction.layers)] = 1
        change = change * mask
    if direction.space == "p":
        return F.leaky_relu(F.leaky_relu(w, 5.0) + change, 0.2)
    return w + change


def apply(generator: Generator, w: Tensor, directions: Mapping[str, Direction], strengths: Mapping[str, float]) -> Tensor:
    """Move W or W+ along named directions; returns W+ (N, num_ws, w_dim). Unknown names raise InputError with the nearest one."""
    w_plus = w_to_w_plus(generator, w)
    for name, strength in strengths.items():
        direction = find(directions, name)
        check_fits(direction, generator)
        w_plus = move(w_plus, direction, strength)
    return w_plus


def find(directions: Mapping[str, Direction], name: str) -> Direction:
    """Return the direction of that name (case and -/_ do not matter); InputError suggests the nearest."""
    plain = {known.lower().replace("-", "_"): direction for known, direction in directions.items()}
    wanted = name.lower().replace("-", "_")
    if wanted in plain:
        return plain[wanted]
    near = get_close_matches(wanted, plain, n=1)
    hint = f"did you mean {plain[near[0]].name!r}?" if near else f"known are {', '.join(sorted(directions))}"
    raise InputError(f"there is no direction {name!r}: {hint}")


def check_fits(direction: Direction, generator: Generator, model: str = "", model_hash: str = "") -> None:
    """Raise InputError where a direction is of another size, another model, or moves layers that are not there."""
    width, layers, shape = generator.config.w_dim, generator.num_ws, tuple(direction.vector.shape)
    check_model(f"the direction {direction.name!r}", direction.model, direction.model_hash, model, model_hash)
    if shape not in {(width,), (layers, width)}:
        size = f"W of {width} and {layers} layers"
        raise InputError(f"the direction {direction.name!r} of shape {shape} was made for another size of model; this generator has {size}")
    if direction.layers is not None and max(direction.layers, default=0) >= layers:
        raise InputError(
            f"the direction {direction.name!r} moves layer {max(direction.layers)}; this generator has the layers 0 to {layers - 1}"
        )


# ------------------------------------------------------------------------------------------------------------- our bundles


def save_directions(path: str | Path, directions: Iterable[Direction], meta: Mapping[str, Any] | None = None) -> Path:
    """Write a bundle of directions as one safetensors file with a JSON header, atomically."""
    found = list(directions)
    described = [
        {
            "name": direction.name,
            "unit": direction.unit,
            "layers": None if direction.layers is None else list(direction.layers),
            "space": direction.space,
            "model": direction.model,
            "model_hash": direction.model_hash,
            "source": dict(direction.source),
        }
        for direction in found
    ]
    header = {KEY: FORMAT, "directions": json.dumps(described), "meta": json.dumps(dict(meta or {}))}
    tensors = {direction.name: direction.vector.detach().float().cpu().contiguous() for direction in found}
    if len(tensors) != len(found):
        raise InputError("two directions of one bundle have the same name: give each its own")
    with atomic(path) as temporary:
        save_file(tensors, temporary, header)
    return Path(path)


def load_directions(path: str | Path, model: str = "", model_hash: str = "") -> dict[str, Direction]:
    """Read a bundle by name; with `model_hash`, directions of another model raise InputError that names both."""
    path = Path(path)
    header, tensors = read_safetensors(path, KEY, "a bundle of directions (made by limn)")
    try:
        found = {
            row["name"]: Direction(
                name=row["name"],
                vector=tensors[row["name"]],
                unit=row["unit"],
                layers=None if row["layers"] is None else tuple(row["layers"]),
                space=row["space"],
                model=row["model"],
                model_hash=row["model_hash"],
                source=row["source"],
            )
            for row in json.loads(header["directions"])
        }
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path.name}: the header is damaged ({error}): fetch or make the file again") from error
    for direction in found.values():
        check_model(f"the direction {direction.name!r} of {path.name}", direction.model, direction.model_hash, model, model_hash)
    return found


# --------------------------------------------------------------------------------------------------------- published files


def read_directions(path: str | Path) -> dict[str, Direction]:
    """Read any direction file: our bundles; InterFaceGAN .npy; e4e and PTI .pt; GANSpace .npz and .pkl; PCA bases; SeFa factors.

    Published files name no model, so they fit every generator of their size: what they do elsewhere than in their own is not said.
    Raises InputError where the file holds nothing of these forms.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file: give a direction file (.safetensors, .npy, .npz, .pt or .pkl)")
    if path.suffix == ".safetensors":
        return load_directions(path)
    contents = _read(path)
    name = path.stem.removesuffix("_boundary")
    found = [_from_array(name, contents)] if isinstance(contents, Tensor) else _from_table(path, name, contents)
    bad = [direction.name for direction in found if not bool(direction.vector.isfinite().all())]
    if bad:
        raise InputError(f"{path.name}: the direction {bad[0]!r} holds values that are not finite")
    return {direction.name: direction for direction in found}


def _read(path: Path) -> Any:
    """Read the file with limn's safe reader: a tensor, or a mapping of values by name."""
    from limn.weights import read

    try:
        contents = read(path).tensors
    except WeightsError as error:
        raise InputError(str(error)) from error
    if not isinstance(contents, Tensor | Mapping):
        raise InputError(f"{path.name} holds no tensor and no table of tensors: it is not a direction file")
    return contents


def _from_array(name: str, array: Any, **fields: Any) -> Direction:
    """Make a direction of (512,), (1, 512), (18, 512) or (1, 18, 512); equal rows are one direction for all layers."""
    vector = torch.as_tensor(array).float()
    if not _is_vector(vector):
        raise InputError(f"{name}: an array of shape {tuple(vector.shape)} is no direction: (w_dim,) or (num_ws, w_dim) is")
    while vector.ndim > 1 and len(vector) == 1:
        vector = vector[0]
    if vector.ndim == 2 and torch.equal(vector, vector[:1].expand_as(vector)):
        vector = vector[0]
    fields.setdefault("unit", "as published; its authors use -5 to 5")
    return Direction(name, vector.contiguous(), **fields)


def _is_vector(array: Tensor) -> bool:
    shape = [size for size in array.shape[:-1] if size != 1]
    return array.ndim > 0 and array.shape[-1] > 1 and (not shape or (len(shape) == 1 and shape[0] <= LAYERS))


def _from_table(path: Path, name: str, table: Mapping[str, Any]) -> list[Direction]:
    """Make directions of a table of arrays, by the names that the published tools write."""
    if {"lat_comp", "lat_stdev", "edit_start", "edit_end"} <= set(table):  # one edit exported from GANSpace's notebook
        layers = tuple(range(int(table["edit_start"]), int(table["edit_end"])))
        vector = torch.as_tensor(table["lat_comp"]).float() * float(table["lat_stdev"])
        return [_from_array(str(table.get("name") or name), vector, unit=SIGMA, layers=layers)]
    for components, deviations, space in (("lat_comp", "lat_stdev", "w"), ("comp", "std", "w"), ("X_comp", "X_stdev", "p")):
        if components in table and deviations in table:
            rows, sigma = torch.as_tensor(table[components]).float(), torch.as_tensor(table[deviations]).float().flatten()
            return [_from_array(f"pca{i}", row * s, unit=SIGMA, space=space) for i, (row, s) in enumerate(zip(rows, sigma, strict=True))]
    if isinstance(table.get("eigvec"), Tensor):  # closed-form factorisation: columns, by falling singular value
        return [_from_array(f"sefa{i}", column, unit="as published; 3 to 10 are usual") for i, column in enumerate(table["eigvec"].T)]
    tensors = {str(key): value for key, value in table.items() if isinstance(value, Tensor)}
    if not tensors or not all(map(_is_vector, tensors.values())):
        held = ", ".join(list(map(str, table))[:8]) or "nothing"
        raise InputError(f"{path.name} holds no direction that limn knows the form of: found {held}")
    return [_from_array(key, value) for key, value in tensors.items()]
