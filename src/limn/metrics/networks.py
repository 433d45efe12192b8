"""The feature networks that measures are taken in: those given, else those in the user's store; limn-identity is in the box.

Published weights are never replaced by others: without them their measures are not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from limn.errors import WeightsError
from limn.metrics.perceptual import SIZE as PERCEPTUAL
from limn.metrics.perceptual import fit, unit
from limn.weights import Loaded, load

IDENTITY = "limn-identity"
SHORT = 12  # digits of a hash in a protocol; the report holds all
KINDS = {"inception": "inception", "lpips": "lpips", IDENTITY: "limn"}  # system -> the space of the measures taken with it
LPIPS = ("alex", "vgg", "squeeze")  # nets, in the order of preference for pairs


@dataclass
class Networks:
    """What is at hand, by what it is for; `used` holds name -> full hash for the report."""

    device: torch.device | str = "cpu"
    limn: Loaded | None = None
    inception: Loaded | None = None
    lpips: dict[str, Any] = field(default_factory=dict)  # net -> models.perception.lpips.Lpips
    hashes: dict[str, str] = field(default_factory=dict)  # "limn-identity", "inception", "lpips vgg" -> content hash and source

    def has(self, space: str) -> bool:
        """Whether measures in this space can be taken."""
        return {"limn": self.limn is not None, "inception": self.inception is not None, "lpips": bool(self.lpips)}.get(space, True)

    def net(self, *wanted: str) -> str:
        """Return the first of the wanted LPIPS nets that is here, else any."""
        return next(net for net in (*wanted, *LPIPS) if net in self.lpips)

    def terms(self, name: str) -> dict[str, str]:
        """Return what a protocol says of a network."""
        return {"features": name, "weights": self.hashes[name].split()[0][:SHORT]}


def find(given: Sequence[str], device: torch.device | str = "cpu", spaces: Collection[str] = ("limn", "inception", "lpips")) -> Networks:
    """Load the feature networks given by name or file, then those of the box and the store that measures in `spaces` are taken with.

    WeightsError for a file of a network that no measure uses.
    """
    found = Networks(device)
    parts: dict[tuple[str, str], Loaded] = {}  # LPIPS comes whole, or as trunk and learned weights: (part, net)
    for name in [*given, *_stored(given, spaces)]:
        loaded = load(name, device=device)
        if loaded.system not in KINDS:
            raise WeightsError(f"{name} is the {loaded.part} of {loaded.system}: features are taken from {', '.join(KINDS)}")
        loaded.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the fast order of a CPU's convolutions
        if loaded.system == "inception" and found.inception is None:
            found.inception = loaded
            found.hashes["inception"] = _hash(loaded)
        elif loaded.system == IDENTITY and found.limn is None:
            found.limn = loaded
            found.hashes[IDENTITY] = _hash(loaded)
        elif loaded.system == "lpips":
            parts.setdefault((loaded.part, loaded.config.net), loaded)
    for net in LPIPS:
        _join(found, net, parts)
    return found


def _stored(given: Sequence[str], spaces: Collection[str]) -> Iterable[str]:
    """Yield the names in the box and the store of systems that measures in `spaces` are taken with, beside those given."""
    from limn.weights.native import read_header
    from limn.weights.store import names

    for name, path in names().items():
        if name in given:
            continue
        try:
            header = read_header(path)
        except WeightsError:  # a damaged file of the store is no business of this measure
            continue
        if header is not None and KINDS.get(header.system) in spaces:
            yield name


def _join(found: Networks, net: str, parts: dict[tuple[str, str], Loaded]) -> None:
    """Put LPIPS together from a whole file, or from a trunk and the learned weights of the same net."""
    whole, trunk, linear = (parts.get((part, net)) for part in ("lpips", "trunk", "linear"))
    if whole is not None:
        found.lpips[net], found.hashes[f"lpips {net}"] = whole.model, _hash(whole)
    elif trunk is not None and linear is not None:
        found.lpips[net] = joined(trunk.model, linear.model, trunk.config, found.device)
        found.hashes[f"lpips {net}"] = f"{_hash(trunk)} + {_hash(linear)}"


def joined(trunk: Any, linear: Any, config: Any, device: torch.device | str = "cpu") -> Any:
    """Return Lpips of a trunk and the learned weights of it."""
    from limn.models.perception.lpips import Lpips

    model = Lpips(config)
    model.trunk, model.linear = trunk, linear
    return model.eval().to(device)


def missing(space: str, name: str) -> str:
    """Say what has to be there for a measure, and what there is instead."""
    if space == "inception":
        said = "the Inception weights of FID (pt_inception-2015-12-05): give --features FILE, or `limn models import FILE` once"
        return f"needs {said}; fd-limn, kd-limn and precision-recall-limn do without"
    if space == "lpips":
        instead = "ppl-limn" if name == "ppl" else "perceptual-limn"
        said = "LPIPS weights, whole or as trunk and learned weights: give --features FILE, or `limn models import FILE` once"
        return f"needs {said}; {instead} does without"
    return "needs limn-identity, which comes with the package: install limn again, or give --features FILE"


def lpips_vectors(model: Any) -> Callable[[Tensor], Tensor]:
    """Return what takes pixels (N, 3, H, W) in [0, 255] to vectors whose squared distance is LPIPS (PPL's feature network)."""

    def embed(pixels: Tensor) -> Tensor:
        maps = model.features(pixels / 127.5 - 1)
        weights = model.linear.layers if model.linear is not None else [torch.ones(())] * len(maps)
        return torch.cat([_flat(unit(each) * weight.sqrt()) for each, weight in zip(maps, weights, strict=True)], 1)

    return embed


def limn_vectors(model: Any) -> Callable[[Tensor], Tensor]:
    """Return the same for limn's own perceptual distance: unit features of limn-identity at 128 pixels, unweighted."""

    def embed(pixels: Tensor) -> Tensor:
        return torch.cat([_flat(unit(each)) for each in model.features(fit(pixels / 127.5 - 1, PERCEPTUAL))], 1)

    return embed


def _flat(features: Tensor) -> Tensor:
    """Flatten maps (N, C, H, W) so that squared distances are means over places."""
    return features.flatten(1) / (features.shape[-2] * features.shape[-1]) ** 0.5


def _hash(loaded: Loaded) -> str:
    source = loaded.meta.get("sha256")
    return f"{loaded.hash}" + (f" (file sha256 {source})" if source else "")
