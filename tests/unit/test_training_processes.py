"""Two processes are one with twice the batch: launched with torchrun and accelerate, over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from limn.training import checkpoint
from limn.training.processes import Processes, in_turn

# A script that trains a tiny regression, or a tiny StyleGAN2 with all its phases, as the command line would.
SCRIPT = """
import os
import socket
import sys
import traceback
from pathlib import Path
import torch
from torch import nn
from limn.models.generation import stylegan2
from limn.models.records import Adam, Phase, Preset
from limn.tasks import train as task
from limn.training import loop, processes

class Regression:
    averaged = ("net",)

    def __init__(self):
        torch.manual_seed(0)
        self.networks = nn.ModuleDict({"net": nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))})
        self.unused = nn.Parameter(torch.ones(2))
        self.networks["net"].register_parameter("unused", self.unused)

    def loss(self, batch, rng):
        return {"square": (self.networks["net"](batch["x"]) - batch["y"]).square().mean()}

    def phases(self):
        return [Phase("net", self.networks["net"].parameters, self.loss, Adam(1e-2), clip=0.5)]


class Points:
    def __len__(self):
        return 64

    def batch(self, step, size, seed):
        x = torch.randn(size, 4, generator=torch.Generator().manual_seed(step))
        return {"x": x, "y": x.sin().sum(1, keepdim=True)}


def regression(out):
    group = processes.join(torch.device("cpu"))
    settings = loop.Settings(out, 12, 8, ema_kimg=0.01, processes=group, report_every=0.0)
    out.mkdir(exist_ok=True)
    loop.train(loop.start(settings, Regression(), lambda *_: None), Points(), lambda line: None)
    group.leave()
    os._exit(0)  # PyTorch's gloo threads abort one exit of the interpreter in seven, after all is written


def gan(out, accumulate, pictures):
    tiny = stylegan2.Config(size=16, z_dim=16, w_dim=16, mapping_layers=2, channels=(16, 16, 8))
    options = {"augment": "bgc", "initial": 0.5, "ramp_kimg": 0.5, "gamma": 0.5}
    stylegan2.PRESETS["tiny"] = Preset(tiny, "images", 8, 10, options, ema_kimg=0.05)
    task.train("stylegan2", pictures, out=out, preset="tiny", steps=6, accumulate=accumulate, precision="float32", device="cpu")


def forked(environment, function, *arguments):
    if child := os.fork():
        return child
    os.environ.update(environment)
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if sys.argv[1] == "regression":
    regression(Path(sys.argv[2]))
else:  # both ways at once, in processes that share the imports
    one, two, pictures = map(Path, sys.argv[2:])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [forked({}, gan, one, 2, pictures)]
    children += [forked(shared | {"RANK": rank, "LOCAL_RANK": rank}, gan, two, 1, pictures) for rank in "01"]
    sys.exit(sum(os.waitpid(child, 0)[1] for child in children) != 0)
"""
ALONE = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]


def launch(tmp_path: Path, launcher: list[str], *arguments: str) -> None:
    """Run the script under a launcher."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    port = ["--main_process_port", str(free_port())] if launcher is ACCELERATE else []
    command = [*launcher, *port, str(script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def free_port() -> int:
    """Return a port of this machine that nothing listens on; the launcher's own choice (port 0) hung at times."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def left(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the tensors of a run's state and the lines of its log."""
    parts, _ = checkpoint.read(out / "state.safetensors")
    state = {f"{part}/{key}": value for part, group in parts.items() for key, value in group.items()}
    return state, [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_parts_in_turn_leave_the_statistics_of_the_whole_batch() -> None:
    norm = nn.BatchNorm1d(1, momentum=0.5)
    seen = []
    for part in in_turn([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])], lambda: [norm.running_mean]):  # type: ignore[list-item]
        seen.append(float(norm.running_mean))  # type: ignore[arg-type]
        norm(part)
    assert seen == [0.0, 0.0], "each part begins with the same"
    assert float(norm.running_mean) == pytest.approx(2.0), "half of the mean of all, as one whole batch leaves it"  # type: ignore[arg-type]


@pytest.mark.timeout(280)
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_give_the_curve_of_one_with_twice_the_batch(tmp_path: Path, launcher: list[str]) -> None:
    launch(tmp_path, ALONE, "regression", str(tmp_path / "one"))
    launch(tmp_path, launcher, "regression", str(tmp_path / "two"))
    (one, lines), (two, again) = left(tmp_path / "one"), left(tmp_path / "two")
    assert len(lines) == len(again) == 12, "one line for every step, from the first process alone"
    for a, b in zip(lines, again, strict=True):
        assert a["net/square"] == pytest.approx(b["net/square"], rel=1e-5), f"step {a['step']}"
    assert lines[-1]["net/square"] < lines[0]["net/square"], "it learns"
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.timeout(280)
def test_a_gan_on_two_processes_equals_one_that_takes_its_batch_in_two_parts(tmp_path: Path) -> None:
    """With sampled noise, mixing, R1, path length, ADA, running styles and averages: the parts of a batch draw the same either way."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(pictures / f"{index:03}.png")
    launch(tmp_path, ALONE, "gan", str(tmp_path / "one"), str(tmp_path / "two"), str(pictures))
    (one, lines), (two, again) = left(tmp_path / "one"), left(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in ("generator/adversarial", "path/path", "discriminator/real", "discriminator/fake", "r1/r1", "augment", "overfit"):
        assert lines[-1][name] == pytest.approx(again[-1][name], rel=2e-3, abs=1e-5), name
    assert torch.equal(one["networks/augment.p"], two["networks/augment.p"]), "augmentation heeds the signs of the whole batch"
    for name, tensor in one.items():
        if not name.startswith("optimiser"):  # Adam divides gradients by their own size: rounding shows in those that are almost zero
            off = (tensor - two[name]).norm() / tensor.norm().clamp_min(1e-3)
            assert off < 0.02, f"{name} differs by {float(off):.1%}"


def test_a_process_alone_exchanges_nothing() -> None:
    alone, layer = Processes(), nn.Linear(2, 1)
    assert alone.first and alone.any(True, False) == [True, False]
    assert alone.average_gradients(list(layer.parameters()), {"loss": 2.0}) == {"loss": 2.0}
    alone.average([layer.weight])
    alone.leave()
