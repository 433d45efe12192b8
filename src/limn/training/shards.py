"""Networks, averages and optimiser state spread over the processes: FSDP2, by a schedule of our own.

`fully_shard` turns every parameter into a DTensor of which each process keeps its share. Its own schedule gathers a module when its forward
is called and reduces gradients when the backward passes its outputs. Objectives call parts of a network (`generator.synthesis`), call
one several times, and differentiate twice (R1, path length): gradients then reach parameters by ways without such a hook, and would be
left out in silence. So a step gathers the networks whole, runs its phases, and after each of them cuts the gradients, so that a
process keeps and steps its share alone. Sharded are parameters between steps, gradients after a phase, the optimisers' moments and the
averages; whole for the length of a step are the networks, and the gradients of one phase.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard

from limn.training import average
from limn.training.processes import Processes

MESSAGE = 1 << 24  # elements of gradients that are reduced together, so that their copy stays small


@dataclass(frozen=True)
class Share:
    """What this process keeps of one parameter."""

    whole: DTensor  # the parameter as FSDP2 keeps it
    own: nn.Parameter  # its part here, in the same memory: what the optimiser steps
    axis: int  # along which it is cut
    home: FSDPModule  # the network that gathers it


class Sharded:
    """The layout of a run whose state is spread over its processes; `Replicated` is the other."""

    def __init__(self, networks: nn.ModuleDict, averages: nn.ModuleDict, processes: Processes) -> None:
        self.networks, self.processes = networks, processes
        warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # speaks of the hooks that are not used here
        self.mesh = init_device_mesh(processes.device.type, (processes.count,))
        for network in (*networks.values(), *averages.values()):
            spread(network, self.mesh)
        self.shares: dict[nn.Parameter, Share] = {}  # by the parameter as it is while gathered
        for home in homes(networks):
            kept = dict(home.named_parameters())  # type: ignore[attr-defined]
            home.unshard()
            for name, gathered in home.named_parameters():  # type: ignore[attr-defined]
                whole = kept[name]
                if isinstance(whole, DTensor) and not isinstance(gathered, DTensor):
                    part = nn.Parameter(average.here(whole), whole.requires_grad)
                    self.shares[gathered] = Share(whole, part, placement(whole).dim, home)
            home.reshard()
        self.stepped = {share.own: share for share in self.shares.values()}

    @contextmanager
    def gathered(self, networks: nn.Module) -> Iterator[None]:
        """Hold networks whole in every process; what was changed in them meanwhile is dropped, their buffers excepted."""
        found = homes(networks)
        for home in found:
            home.unshard()
        try:
            yield
        finally:
            for home in found:
                home.reshard()

    def own(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """Return what this process steps of gathered parameters; scalars are whole everywhere."""
        return [self.shares[p].own if p in self.shares else p for p in parameters]

    def average_gradients(self, parameters: Sequence[nn.Parameter], figures: dict[str, float]) -> dict[str, float]:
        """Give each process its part of the mean gradients of a phase; return the means of the figures."""
        figures = self.processes.average_gradients([p for p in parameters if p not in self.shares], figures)
        cut = [p for p in parameters if p in self.shares]
        reached = self.processes.any(*(p.grad is not None for p in cut))
        cut = [p for p, anywhere in zip(cut, reached, strict=True) if anywhere]
        while cut:
            together, elements = 0, 0
            while together < len(cut) and (not together or elements + cut[together].numel() <= MESSAGE):
                elements, together = elements + cut[together].numel(), together + 1
            self.hand_out(cut[:together])
            cut = cut[together:]
        return figures

    @torch.no_grad()
    def hand_out(self, parameters: Sequence[nn.Parameter]) -> None:
        """Reduce whole gradients to the part of each process, in one message, and drop them."""
        count = self.processes.count
        pieces = [slices(torch.zeros_like(p) if p.grad is None else p.grad, self.shares[p].axis, count) for p in parameters]
        rows = torch.cat([piece.flatten(1).float() for piece in pieces], 1)
        mine = rows.new_empty(rows.shape[1])
        scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor  # its name before torch 2.13
        scatter(mine, rows.view(-1))
        mine /= count
        for parameter, piece, mean in zip(parameters, pieces, mine.split([p[0].numel() for p in pieces]), strict=True):
            share = self.shares[parameter]
            padded = mean.view(piece.shape[1:])
            share.own.grad = padded.narrow(share.axis, 0, share.own.shape[share.axis]).to(share.own.dtype)
            parameter.grad = None

    def clip(self, parameters: Sequence[nn.Parameter], most: float) -> None:
        """Scale down the gradients whose norm over all processes exceeds `most`."""
        parts = [share.own.grad for p in parameters if (share := self.shares.get(p)) and share.own.grad is not None]
        loose = [p.grad for p in parameters if p not in self.shares and p.grad is not None]
        squares = torch.zeros((), device=self.processes.device)
        for part in parts:
            squares += part.square().sum()
        dist.all_reduce(squares)
        for gradient in loose:
            squares += gradient.square().sum()
        if gradients := [*parts, *loose]:
            torch._foreach_mul_(gradients, (most / (squares.sqrt() + 1e-6)).clamp(max=1.0))

    def settle(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gather anew the networks whose parameters were stepped."""
        for home in dict.fromkeys(self.shares[p].home for p in parameters if p in self.shares):
            home.reshard()
            home.unshard()

    def outer(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        """Return a share of an optimiser's state as the DTensor of the whole."""
        share = self.stepped.get(parameter)
        if share is None or value.shape != share.own.shape or not value.ndim:
            return value
        whole = share.whole
        return DTensor.from_local(value, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride())

    def template(self, parameter: nn.Parameter) -> Tensor:
        """Return a tensor that is laid out as an optimiser's moment of a parameter that it steps."""
        return self.stepped[parameter].whole if parameter in self.stepped else parameter

    def close(self) -> None:
        """Let go of the group of processes: DTensor's caches keep the mesh for good, and the mesh its group."""
        getattr(self.mesh, "_pg_registry", {}).clear()

    def whole(self, networks: nn.ModuleDict) -> dict[str, dict[str, Tensor]]:
        """Gather the state of each network on the CPU of the first process, tensor by tensor; the others get nothing."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return {name: cast(dict[str, Tensor], get_model_state_dict(network, options=options)) for name, network in networks.items()}


def spread(network: nn.Module, mesh: DeviceMesh) -> None:
    """Let every process keep its part of a network's parameters; a list or dictionary of networks has each of them spread."""
    if isinstance(network, nn.ModuleList | nn.ModuleDict):
        for part in network.children():
            spread(part, mesh)
        return
    scalars = {parameter for parameter in network.parameters() if not parameter.ndim}
    if any(isinstance(parameter, DTensor) for parameter in network.parameters()) or len(scalars) == len(list(network.parameters())):
        return  # it lies within another network, or has nothing to cut
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    sharded = fully_shard(
        network,
        mesh=mesh,
        reshard_after_forward=False,
        shard_placement_fn=lambda p: Shard(axis(p.shape, mesh.size())),
        ignored_params=scalars,
    )
    sharded.set_requires_gradient_sync(False)
    sharded.set_reshard_after_backward(False)


def axis(shape: torch.Size, count: int) -> int:
    """Return the dimension along which a parameter is cut: the first that gives all of `count` processes as much, else the first."""
    return next((dim for dim, length in enumerate(shape) if length % count == 0), 0)


def slices(tensor: Tensor, dim: int, count: int) -> Tensor:
    """Cut a tensor into `count` equal parts along `dim`, (count, ...): as torch.chunk does, the last ones filled up with zeros."""
    each = -(-tensor.shape[dim] // count)
    missing = each * count - tensor.shape[dim]
    if missing:
        tensor = torch.cat([tensor, tensor.new_zeros([*tensor.shape[:dim], missing, *tensor.shape[dim + 1 :]])], dim)
    return tensor.unflatten(dim, (count, each)).movedim(dim, 0)


def placement(whole: DTensor) -> Shard:
    """Return how a parameter is cut."""
    (found,) = whole.placements
    assert isinstance(found, Shard)
    return found


def homes(networks: nn.Module) -> list[FSDPModule]:
    """Return the networks among modules that FSDP2 gathers."""
    return [module for module in networks.modules() if isinstance(module, FSDPModule)]
