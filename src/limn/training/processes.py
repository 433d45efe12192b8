"""Several processes that train one model: who they are, and what they tell each other after every phase.

Accelerate reads how the processes were launched (`accelerate launch`, `torchrun`, Slurm, MPI) and opens the torch.distributed group.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from limn.errors import TrainingError

T = TypeVar("T")
LAUNCHED = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # what launchers tell their processes
# What gloo and NCCL say, among other words, when a peer is gone.
LOST = ("connection closed", "connection reset", "broken pipe", "timed out waiting", "ncclremoteerror", "communicator was aborted")


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
        """Close the group, all at once: a process that lost its peers while closing would abort.

        Nothing may hold the group any more: its threads would live on into the end of the interpreter, and abort it there now and then
        ("terminate called without an active exception"). FSDP2's state does, in cycles of references, while its networks live.
        """
        if self.count > 1:
            gc.collect()
            self.wait()
            dist.destroy_process_group()


class Replicated:
    """The layout of a run of which every process keeps all, as one that is alone does; `shards.Sharded` is the other."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    @contextmanager
    def gathered(self, networks: nn.Module) -> Iterator[None]:  # noqa: ARG002
        """Hold networks whole, which they are."""
        yield

    def own(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """Return what this process steps of gathered parameters: all."""
        return list(parameters)

    def average_gradients(self, parameters: Sequence[nn.Parameter], figures: dict[str, float]) -> dict[str, float]:
        """Give each process the mean gradients of a phase; return the means of the figures."""
        return self.processes.average_gradients(parameters, figures)

    def clip(self, parameters: Sequence[nn.Parameter], most: float) -> None:
        """Scale down the gradients where their norm exceeds `most`."""
        nn.utils.clip_grad_norm_(parameters, most)

    def settle(self, parameters: Sequence[nn.Parameter]) -> None:
        """Bring the networks up to date after a step, which they are."""

    def outer(self, parameter: nn.Parameter, value: Tensor) -> Tensor:  # noqa: ARG002
        """Return a part of an optimiser's state as checkpoints hold it."""
        return value

    def template(self, parameter: nn.Parameter) -> Tensor:
        """Return a tensor that is laid out as an optimiser's moment of a parameter that it steps."""
        return parameter

    def whole(self, networks: nn.ModuleDict) -> dict[str, dict[str, Tensor]]:
        """Return the state of each network."""
        return {name: network.state_dict() for name, network in networks.items()}

    def close(self) -> None:
        """Let go of the group of processes, which is not held."""


@contextmanager
def together(processes: Processes) -> Iterator[None]:
    """Turn the loss of another process into one line: torch.distributed raises a RuntimeError of a socket's words."""
    try:
        yield
    except RuntimeError as error:
        if processes.count == 1 or not any(word in str(error).lower() for word in LOST):
            raise
        raise TrainingError(
            f"process {processes.rank} of {processes.count}: another process of this run has ended (its own message says why); "
            "the last checkpoint is good: start the same command again to go on from it"
        ) from error


def join(place: torch.device) -> Processes:
    """Join the processes that were launched together, each on a device of the kind of `place`; one that is alone keeps `place`.

    TrainingError where `accelerate launch` was asked for several processes and started one: it then leaves an address to meet at.
    """
    if not any(int(os.environ.get(name, "1")) > 1 for name in LAUNCHED):
        if "WORLD_SIZE" not in os.environ and {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys():
            raise TrainingError(
                "accelerate launch was asked for several processes and started one, as it does without several GPUs: "
                "use `accelerate launch --multi_gpu --num_processes N` (without --cpu) or `torchrun --nproc_per_node N`"
            )
        return Processes(device=place)
    import torch.distributed.nn  # noqa: F401 - its default arguments keep the group open for good if it is imported after it
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


@contextmanager
def interrupted() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that the step in progress ends and a checkpoint is written; a second one acts at once."""
    got: list[int] = []
    before: dict[int, Any] = {}

    def take(number: int, _: FrameType | None) -> None:
        got.append(number)
        signal.signal(number, before[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        before[number] = signal.signal(number, take)
    try:
        yield got
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
