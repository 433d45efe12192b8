"""Several processes that train one model: who they are, and what they tell each other after every phase.

Accelerate reads how the processes were launched (`accelerate launch`, `torchrun`, Slurm, MPI) and opens the torch.distributed group.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

T = TypeVar("T")
LAUNCHED = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # what launchers tell their processes


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; alone by default."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes and reports."""
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the processes, all of them in one message."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).to(self.device, torch.float32) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        with torch.no_grad():
            for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(mean.view(tensor.shape))

    def average_gradients(self, parameters: Sequence[nn.Parameter], figures: dict[str, float]) -> dict[str, float]:
        """Average the gradients of a phase over the processes; return the means of its figures.

        One flattened all-reduce after the backward pass instead of DistributedDataParallel: DDP hooks the forward pass of the module
        it wraps, while objectives call sub-networks (`generator.synthesis`, `discriminator`) and differentiate twice, which those
        hooks do not survive. A parameter that had no gradient in any process keeps none, as in one process.
        """
        if self.count == 1:
            return figures
        with torch.no_grad():
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            reached = torch.tensor([float(p.grad is not None) for p in parameters])
        values = torch.tensor(list(figures.values()))
        self.average([*gradients, reached, values])
        for parameter, gradient, share in zip(parameters, gradients, reached.tolist(), strict=True):
            parameter.grad = gradient if share else None
        return dict(zip(figures, values.tolist(), strict=True))

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set in any process, so that all of them stop or save at the same step."""
        if self.count == 1:
            return list(flags)
        told = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return [bool(flag) for flag in told.tolist()]

    def wait(self) -> None:
        """Return when every process has come here."""
        self.any(False)

    def leave(self) -> None:
        """Close the group, all at once: a process that lost its peers while closing would abort."""
        if self.count > 1:
            self.wait()
            dist.destroy_process_group()


def join(place: torch.device) -> Processes:
    """Join the processes that were launched together, each on a device of the kind of `place`; one that is alone keeps `place`."""
    if not any(int(os.environ.get(name, "1")) > 1 for name in LAUNCHED):
        return Processes(device=place)
    from accelerate import PartialState

    state = PartialState(cpu=place.type == "cpu")
    return Processes(state.process_index, state.num_processes, state.device)


def in_turn(parts: Sequence[T], tensors: Callable[[], list[Tensor]]) -> Iterator[T]:
    """Yield the parts of a batch; each begins with the same running statistics, and the mean of what they become is left.

    So a batch in parts moves a running mean once, as the whole batch does, and as processes that share it do.
    """
    if len(parts) == 1:
        yield from parts
        return
    begun = [tensor.clone() for tensor in tensors()]
    sums = [torch.zeros_like(tensor) for tensor in begun]
    for part in parts:
        for tensor, value in zip(tensors(), begun, strict=True):
            tensor.copy_(value)
        yield part
        for total, tensor in zip(sums, tensors(), strict=True):
            total.add_(tensor)
    for tensor, total in zip(tensors(), sums, strict=True):
        tensor.copy_(total / len(parts))


def statistics(networks: nn.Module, kept: Iterable[Tensor] = ()) -> list[Tensor]:
    """Return the running statistics that parts and processes average: floating-point buffers, and what an objective keeps.

    Each is a running mean of means over samples (average style, batch normalisation, path length) or a pair of sums of which only
    the ratio counts (ADA's signs): the mean over equal parts of a batch is then the value for the whole batch.
    """
    return [buffer for buffer in networks.buffers() if buffer.is_floating_point()] + list(kept)
