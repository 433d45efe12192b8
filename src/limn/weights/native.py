"""limn's own weight files: safetensors whose header says what the tensors are, where they come from and who may use them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from limn.errors import WeightsError
from limn.media.files import atomic
from limn.models import system as import_system
from limn.weights.store import resolve

FORMAT = "1"
HALF_ERROR = 1e-3  # of a tensor's largest value: what half precision may cost before the tensor stays float32

Network = nn.Module | Mapping[str, Tensor]


@dataclass(frozen=True)
class Loaded:
    """A network read from a file: in eval mode, without gradients (`requires_grad_(True)` makes it trainable)."""

    model: nn.Module
    system: str
    part: str
    config: Any  # the system's Config
    meta: dict[str, Any]  # origin, sha256 of the source, licence, and whatever was saved with it
    hash: str  # sha256 of names, shapes and values: what saved latents and directions name this model by


@dataclass(frozen=True)
class Header:
    """What a native file says about itself, without reading a tensor."""

    system: str
    part: str  # the one that `load` gives unless asked for another
    parts: tuple[str, ...]
    configs: dict[str, dict[str, Any]]  # part -> fields of the system's Config
    hashes: dict[str, str]  # part -> content hash
    meta: dict[str, Any]
    limn: str  # the version that wrote it


def save(
    path: str | Path,
    networks: Network | Mapping[str, Network],
    system: str,
    part: str = "",
    config: Any = None,
    meta: Mapping[str, Any] | None = None,
    half: bool = False,
) -> Path:
    """Write networks of one system to a native file, atomically.

    `networks` is one network (a module or a state dict; `part` names it) or several by part; `part` is then the main one
    (the first by default). `config` is the system's Config for all parts, or one for each by part. `meta` holds plain
    values; `origin`, `sha256` and `licence` are shown by `limn models`. With `half`, tensors that bear it become float16.
    """
    states = {name: _state(network) for name, network in _by_part(networks, part).items()}
    main = part or next(iter(states))
    configs = {name: dataclasses.asdict(config[name] if isinstance(config, Mapping) else config) for name in states}
    if half:
        states = {name: {key: _halved(tensor) for key, tensor in state.items()} for name, state in states.items()}
    meta = dict(meta or {})
    header = {
        "limn": FORMAT,
        "limn_version": limn_version(),
        "system": system,
        "part": main,
        "parts": json.dumps(list(states)),
        "config": json.dumps(configs),
        "hashes": json.dumps({name: content_hash(state) for name, state in states.items()}),
        **{name: str(meta.get(name, "")) for name in ("origin", "sha256", "licence")},
        "meta": json.dumps(meta),
    }
    tensors = {f"{name}.{key}": tensor for name, state in states.items() for key, tensor in state.items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, header)
        temporary.chmod(0o644)  # safetensors makes files that nobody else can read: an installed model would be of no use to others
    return Path(path)


def load(path_or_name: str | Path, part: str | None = None, device: torch.device | str = "cpu") -> Loaded:
    """Load a network by its name (box, then the user's store) or path; a published file is recognised and converted in memory.

    `part` chooses a network of a file that holds several. Raises WeightsError with the reason in one line.
    """
    path = resolve(path_or_name)
    header = read_header(path)
    if header is None:
        from limn.weights.recognise import adopt_file

        return adopt_file(path, part=part, device=device)
    return _load_native(path, header, header.part if part is None else part, device)


def read_header(path: Path) -> Header | None:
    """Read what a native file says about itself; None for a file of any other kind."""
    from limn.weights.reader import safetensors_metadata

    fields = safetensors_metadata(path)
    if fields is None or "limn" not in fields:
        return None
    if fields["limn"] != FORMAT:
        raise WeightsError(f"{path.name}: limn format {fields['limn']} is newer than this limn reads ({FORMAT}): upgrade limn")
    try:
        return Header(
            system=fields["system"],
            part=fields["part"],
            parts=tuple(json.loads(fields["parts"])),
            configs=json.loads(fields["config"]),
            hashes=json.loads(fields["hashes"]),
            meta=json.loads(fields["meta"]),
            limn=fields["limn_version"],
        )
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path.name}: the limn header is damaged ({error}): fetch or import the file again") from error


def config_from(cls: type, fields: Mapping[str, Any], writer: str = "", where: str = "config") -> Any:
    """Build a Config from its JSON fields: lists become tuples, nested dataclasses are rebuilt, unknown keys are an error."""
    hints = get_type_hints(cls)
    unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
    if unknown:
        written = f"it was written by limn {writer}, this is {limn_version()}: upgrade limn" if writer else "remove it"
        raise WeightsError(f"{where}: {cls.__module__}.{cls.__qualname__} has no {', '.join(unknown)}; {written}")
    return cls(**{name: _plain(value, hints[name], writer, where) for name, value in fields.items()})


def content_hash(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a state dict: sorted names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def build(system: str, part: str, config: Any, where: str) -> nn.Module:
    """Build the network of a system's part; the global random state is left as it was."""
    networks = import_system(system).NETWORKS
    if part not in networks:
        raise WeightsError(f"{where}: {system} has no part {part!r}; it has {', '.join(networks)}")
    with torch.random.fork_rng(devices=[]):
        return cast(nn.Module, networks[part](config))


def limn_version() -> str:
    """Return the version of this package; "source" where it runs without being installed."""
    try:
        return version("limn")
    except PackageNotFoundError:
        return "source"


def strict_load(network: nn.Module, state: Mapping[str, Tensor], where: str) -> nn.Module:
    """Load a state dict of our names: every tensor must be there with its shape, and nothing else (WeightsError lists names)."""
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    left = [name for name in state if name not in wanted]
    wrong = [
        f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    said = [
        f"{len(names)} {kind} ({listed(names)})"
        for kind, names in (("missing", missing), ("left over", left), ("misshapen", wrong))
        if names
    ]
    if said:
        raise WeightsError(f"{where} does not fit {type(network).__name__}: {'; '.join(said)}")
    network.load_state_dict(dict(state), strict=True)
    return network.eval().requires_grad_(False)


def listed(names: list[str], most: int = 10) -> str:
    """Join the first names of a list for a message of one line."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _load_native(path: Path, header: Header, part: str, device: torch.device | str) -> Loaded:
    if part not in header.parts:
        raise WeightsError(f"{path.name} holds no {part!r} of {header.system}: it holds {', '.join(header.parts)}")
    state = _read_part(path, part)
    if content_hash(state) != header.hashes.get(part):
        raise WeightsError(f"{path.name}: the tensors of {part} are not those that were saved: fetch or import the file again")
    config = config_from(import_system(header.system).Config, header.configs[part], header.limn, path.name)
    model = strict_load(build(header.system, part, config, path.name), state, f"{part} in {path.name}")
    return Loaded(model.to(device), header.system, part, config, header.meta, header.hashes[part])


def _read_part(path: Path, part: str) -> dict[str, Tensor]:
    prefix = f"{part}."
    try:
        with safe_open(path, framework="pt") as file:
            return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path.name} cannot be read: {error}") from error


def _by_part(networks: Network | Mapping[str, Network], part: str) -> dict[str, Network]:
    if isinstance(networks, nn.ModuleDict):
        parts: dict[str, Any] = dict(networks.items())
    elif isinstance(networks, nn.Module) or all(isinstance(value, Tensor) for value in networks.values()):
        parts = {part: networks}
    else:
        parts = dict(networks)
    bad = [name for name in parts if not name or "." in name]
    if bad or not parts or (part and part not in parts):
        raise WeightsError(f"parts {list(parts)} with main part {part!r}: every network needs a name without dots, the main one among them")
    return parts


def _state(network: Network) -> dict[str, Tensor]:
    state = network.state_dict() if isinstance(network, nn.Module) else network
    copies: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, given in state.items():  # tensors that share memory are written twice: safetensors refuses them otherwise
        tensor = given.detach().cpu().contiguous()
        copies[name] = tensor.clone() if tensor.untyped_storage().data_ptr() in seen else tensor
        seen.add(tensor.untyped_storage().data_ptr())
    return copies


def _halved(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32 or not tensor.numel():
        return tensor
    small = tensor.half()
    lost = (small.float() - tensor).abs().max() / tensor.abs().max().clamp_min(1e-30)
    return small if bool(lost <= HALF_ERROR) else tensor


def _plain(value: Any, hint: Any, writer: str, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return config_from(cast(type, hint), value, writer, where)
    return tuple(_plain(item, None, writer, where) for item in value) if isinstance(value, list) else value
