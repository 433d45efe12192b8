"""What a run leaves behind to be looked at: log.jsonl, TensorBoard scalars, sample sheets and a film of them."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limn.errors import InputError, TrainingError
from limn.media import atomic, grid, to_image
from limn.training.processes import Processes

FACTS = ("step", "images", "images_per_second", "seconds", "eta", "memory")  # of a line, beside figures and rates
FILM_FPS = 10


class Journal:
    """Means of the figures between two lines, written as they are due."""

    def __init__(self, out: Path, batch: int, steps: int, every: float, step: int, processes: Processes) -> None:
        self.out, self.batch, self.steps, self.every, self.device = out, batch, steps, every, processes.device
        self.sums, self.counts = dict[str, float](), dict[str, int]()
        self.step, self.since, self.begun = step, time.monotonic(), time.monotonic()
        self.board: Any = None
        if processes.first and find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(out / "tensorboard"), purge_step=step)

    def add(self, step: int, figures: dict[str, float]) -> dict[str, Any] | None:
        """Take the figures of a step; write and return the line when one is due."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        elapsed = time.monotonic() - self.since
        if elapsed < self.every and step < self.steps:
            return None
        rate = (step - self.step) * self.batch / max(elapsed, 1e-9)
        line: dict[str, Any] = {"step": step, "images": step * self.batch, "images_per_second": rate}
        line |= {"seconds": time.monotonic() - self.begun, "eta": (self.steps - step) * self.batch / rate, "memory": memory(self.device)}
        line |= {name: self.sums[name] / self.counts[name] for name in self.sums}
        self.write(line)
        if self.board is not None:
            for name in line.keys() - {"step"}:
                self.board.add_scalar(name, line[name], step)
            self.board.flush()
        self.sums, self.counts, self.step, self.since = {}, {}, step, time.monotonic()
        return line

    def write(self, line: dict[str, Any]) -> None:
        """Append a line to log.jsonl."""
        try:
            with (self.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        except OSError as error:
            raise TrainingError(f"{self.out / 'log.jsonl'}: cannot be written ({error.strerror}); checkpoints are untouched") from error

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def memory(device: torch.device) -> float:
    """Gigabytes in use: the largest so far on a GPU, else those of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e9


def sheet(out: Path, step: int, images: Tensor) -> None:
    """Write images (N, 3, H, W) in [-1, 1] as one sheet."""
    folder = out / "samples"
    folder.mkdir(exist_ok=True)
    with atomic(folder / f"{step:07d}.png") as beside:
        grid([to_image(image) for image in images.float().cpu()]).save(beside, "PNG")


def film(out: Path) -> Path | None:
    """Make samples.mp4 of the sheets, in order; None where there are fewer than two of one size."""
    from PIL import Image

    from limn.media import write_video

    sheets = sorted((out / "samples").glob("*.png"))
    if len(sheets) < 2:
        return None
    try:
        return write_video(out / "samples.mp4", (Image.open(path).convert("RGB") for path in sheets), FILM_FPS)
    except InputError:  # sheets of an earlier size in the same folder make no film; the sheets themselves are there
        return None
