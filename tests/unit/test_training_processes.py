"""Two processes are one with twice the batch: launched with torchrun and accelerate, over gloo."""

from __future__ import annotations

import json
import os
import resource
import shutil
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

from limn.errors import TrainingError
from limn.training import checkpoint
from limn.training.datasets import open_dataset
from limn.training.processes import Processes, in_turn, join
from limn.weights import load

# A script that trains a tiny regression, or a tiny StyleGAN2 with all its phases, as the command line would.
SCRIPT = """
import os
import shutil
import socket
import sys
import traceback
from pathlib import Path
import torch
from torch import nn
from limn.models.generation import stylegan2
from limn.models.records import Adam, Phase, Preset
from limn.tasks import train as task
from limn.training import loop, page, processes

class Regression:
    averaged = ("net",)

    def __init__(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8)), nn.Tanh(), nn.Linear(8, 1))
        self.networks = nn.ModuleDict({"net": net, "list": nn.ModuleList([nn.Linear(1, 1)])})
        self.unused = nn.Parameter(torch.ones(2))
        self.networks["net"].register_parameter("unused", self.unused)

    def loss(self, batch, rng):
        return {"square": (self.networks["list"][0](self.networks["net"](batch["x"])) - batch["y"]).square().mean()}

    def phases(self):
        return [Phase("net", self.networks.parameters, self.loss, Adam(1e-2), clip=0.5)]


class Points:
    def __len__(self):
        return 64

    def batch(self, step, size, seed):
        x = torch.randn(size, 4, generator=torch.Generator().manual_seed(step))
        return {"x": x, "y": x.sin().sum(1, keepdim=True)}


def regression(out, sharded):
    group = processes.join(torch.device("cpu"))
    settings = loop.Settings(out, 12, 8, ema_kimg=0.01, processes=group, report_every=0.0, sharded=sharded == "fsdp")
    out.mkdir(exist_ok=True)
    run = loop.start(settings, Regression(), lambda *_: None)
    loop.train(run, Points(), lambda line: None)
    run.layout.close()
    del run
    group.leave()


def gan(pictures, out, steps, accumulate, parallel):
    tiny = stylegan2.Config(size=16, z_dim=16, w_dim=16, mapping_layers=2, channels=(16, 16, 8))
    options = {"augment": "bgc", "initial": 0.5, "ramp_kimg": 0.5, "gamma": 0.5}
    stylegan2.PRESETS["tiny"] = Preset(tiny, "images", 8, 10, options, ema_kimg=0.05)
    page.PLAIN = 1e9  # seconds: one line at the end, however slow the machine
    steps, _, last = steps.partition("!")
    if last:  # the second process dies in the step after so many, as if the system had killed it
        step = loop.one_step
        loop.one_step = lambda run, batch: os.kill(os.getpid(), 9) if os.environ["RANK"] + str(run.step) == "1" + last else step(run, batch)
    task.train("stylegan2", pictures, out=out, preset="tiny", steps=int(steps), accumulate=int(accumulate), parallel=parallel,
               save_steps=2 if last else 0, precision="float32", device="cpu")


def forked(environment, function, *arguments):
    if child := os.fork():
        return child
    os.environ.update(environment)
    try:
        function(*arguments)
        threads = {(task / "comm").read_text().strip() for task in Path("/proc/self/task").glob("*")}
        assert "pt_gloo_runloop" not in threads, "the group's threads would abort the end of the interpreter"
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if sys.argv[1] == "regression":
    regression(Path(sys.argv[2]), sys.argv[3])
else:  # runs of the form "processes out steps accumulate parallel", side by side in processes that share the imports, "then" others
    root, children = Path(sys.argv[2]), []
    for run in [*sys.argv[3:], "then"]:
        count, *rest = run.split()
        if count == "then":
            if sum(os.waitpid(child, 0)[1] for child in children):
                sys.exit(1)
            children = []
            if rest:
                shutil.copytree(root / rest[0], root / rest[1])
            continue
        if count == "0":
            children.append(forked({}, regression, root / rest[0], "ddp"))
            continue
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        for rank in range(int(count)):
            shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            children.append(forked(shared if count != "1" else {}, gan, root / "pictures", root / rest[0], *rest[1:]))
"""
ALONE = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]


def launch(tmp_path: Path, launcher: list[str], *arguments: str, fails: bool = False) -> str:
    """Run the script under a launcher, and return what it said on stderr."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    port = ["--main_process_port", str(free_port())] if launcher is ACCELERATE else []
    command = [*launcher, *port, str(script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stderr


def free_port() -> int:
    """Return a port of this machine that nothing listens on; the launcher's own choice (port 0) hung at times."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def left(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the tensors of a run's state and the lines of its log."""
    state = checkpoint.latest(out)
    assert state is not None
    parts, _ = checkpoint.read(state)
    return checkpoint.flat(parts), [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_parts_in_turn_leave_the_statistics_of_the_whole_batch() -> None:
    norm = nn.BatchNorm1d(1, momentum=0.5)
    seen = []
    for part in in_turn([torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])], lambda: [norm.running_mean]):  # type: ignore[list-item]
        seen.append(float(norm.running_mean))  # type: ignore[arg-type]
        norm(part)
    assert seen == [0.0, 0.0], "each part begins with the same"
    assert float(norm.running_mean) == pytest.approx(2.0), "half of the mean of all, as one whole batch leaves it"  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs of a tiny StyleGAN2 with noise, mixing, R1, path length, ADA, running styles and averages."""
    root = tmp_path_factory.mktemp("runs")
    (root / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(root / "pictures" / f"{index:03}.png")
    begun = ["1 one 6 2 ddp", "2 ddp 6 1 ddp", "2 fsdp 6 1 fsdp", "2 fsdp-again 4 1 fsdp", "1 one-to-fsdp 4 2 ddp", "0 regression"]
    ended = ["2 fsdp-again 6 1 fsdp", "1 fsdp-to-one 6 2 ddp", "2 one-to-fsdp 6 1 fsdp"]
    launch(root, ALONE, "gan", str(root), *begun, "then fsdp-again fsdp-to-one", *ended)
    return root


@pytest.mark.timeout(280)
@pytest.mark.parametrize(("launcher", "parallel"), [(TORCHRUN, "fsdp"), (ACCELERATE, "ddp")], ids=["torchrun", "accelerate"])
def test_two_processes_give_the_curve_of_one_with_twice_the_batch(runs: Path, tmp_path: Path, launcher: list[str], parallel: str) -> None:
    launch(tmp_path, launcher, "regression", str(tmp_path / "two"), parallel)
    (one, lines), (two, again) = left(runs / "regression"), left(tmp_path / "two")
    assert len(lines) == len(again) == 12, "one line for every step, from the first process alone"
    for a, b in zip(lines, again, strict=True):
        assert a["net/square"] == pytest.approx(b["net/square"], rel=1e-5), f"step {a['step']}"
    assert lines[-1]["net/square"] < lines[0]["net/square"], "it learns"
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.timeout(280)
@pytest.mark.parametrize("other", ["ddp", "fsdp", "fsdp-to-one", "one-to-fsdp"])
def test_a_gan_on_two_processes_equals_one_that_takes_its_batch_in_two_parts(runs: Path, other: str) -> None:
    """Whether both keep all or each its share, and where a run goes on in another number of processes than it began in."""
    (one, lines), (two, again) = left(runs / "one"), left(runs / other)
    assert one.keys() == two.keys()
    for name in ("generator/adversarial", "path/path", "discriminator/real", "discriminator/fake", "r1/r1", "augment", "overfit"):
        if "-to-" not in other:  # a line holds the mean since the run was started
            assert lines[-1][name] == pytest.approx(again[-1][name], rel=2e-3, abs=1e-5), name
    assert torch.equal(one["networks/augment.p"], two["networks/augment.p"]), "augmentation heeds the signs of the whole batch"
    for name, tensor in one.items():
        if not name.startswith("optimiser"):  # Adam divides gradients by their own size: rounding shows in those that are almost zero
            off = (tensor - two[name]).norm() / tensor.norm().clamp_min(1e-3)
            assert off < 0.02, f"{name} differs by {float(off):.1%}"


@pytest.mark.timeout(280)
def test_shares_go_on_bit_for_bit_and_leave_a_whole_model(runs: Path) -> None:
    (whole, _), (again, _) = left(runs / "fsdp"), left(runs / "fsdp-again")
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items()), "4 steps and 2 are 6"
    assert [path.name for path in checkpoint.states(runs / "fsdp-again")] == ["state-00000006"], "the one before is gone"
    assert [path.name for path in checkpoint.states(runs / "fsdp-to-one")] == ["state.safetensors"]
    shares = list((runs / "fsdp" / "state-00000006").glob("shard-*.safetensors"))
    assert len(shares) == 2 and max(path.stat().st_size for path in shares) < 0.6 * sum(path.stat().st_size for path in shares)
    model = load(runs / "fsdp" / "model.safetensors").model.state_dict()
    for name, tensor in model.items():
        assert torch.equal(tensor, whole[f"averages/generator.{name}"]), name


@pytest.mark.timeout(280)
def test_a_process_that_is_killed_ends_the_other_with_one_line(runs: Path) -> None:
    said = launch(runs, ALONE, "gan", str(runs), "2 lost-ddp 6!5 1 ddp", "2 lost-fsdp 6!5 1 fsdp", fails=True)
    assert said.count("TrainingError: process 0 of 2: another process of this run has ended") == 2
    for out in (runs / "lost-ddp", runs / "lost-fsdp"):
        state = checkpoint.latest(out)
        assert state is not None and checkpoint.facts_of(state)["step"] == 4
        assert load(out / "model.safetensors").meta["training"]["step"] == 4


def test_a_damaged_share_is_named_and_a_half_written_folder_is_none(runs: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(runs / "fsdp", tmp_path / "out"))
    (state,) = checkpoint.states(out)
    shutil.copytree(state, out / ".state-00000007.part")
    assert checkpoint.latest(out) == state, "what was not renamed is not there"
    checkpoint.sweep(out)
    assert not (out / ".state-00000007.part").exists()
    share = next(state.glob("shard-00001*"))
    share.write_bytes(share.read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"shard-00001.*not as it was written"):
        checkpoint.read(state)


def test_a_full_disk_leaves_the_shares_that_were_there(tmp_path: Path) -> None:
    parts, before = {"networks": {"weight": torch.ones(100_000)}}, resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoint.write_shares(tmp_path, parts, {"step": 1}, Processes())
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # bytes of a file
    try:
        with pytest.raises(TrainingError, match=r"state-00000002: could not be written .*[Ff]ile too large.*last good checkpoint"):
            checkpoint.write_shares(tmp_path, parts, {"step": 2}, Processes())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (state,) = checkpoint.states(tmp_path)
    read, facts = checkpoint.read(state)
    assert facts == {"step": 1} and torch.equal(read["networks"]["weight"], parts["networks"]["weight"])


def test_accelerate_that_started_one_process_of_several_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert join(torch.device("cpu")).count == 1
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(TrainingError, match="--multi_gpu"):
        join(torch.device("cpu"))


def test_each_process_decodes_its_rows_of_the_batch(runs: Path) -> None:
    class Config:
        size = 16

    data = open_dataset("images", runs / "pictures", Config(), memory=0.0)
    whole = data.batch(3, 8, 1)["image"]
    decoded: list[int] = []
    make = data.store.make  # type: ignore[attr-defined]
    data.store.make = lambda number: decoded.append(number) or make(number)  # type: ignore[attr-defined, func-returns-value]
    data.store.coming.clear()  # type: ignore[attr-defined]
    parts = [data.batch(3, 8, 1, rows=slice(begin, begin + 4))["image"] for begin in (0, 4)]  # type: ignore[call-arg]
    assert torch.equal(torch.cat(parts), whole)
    assert len(decoded) <= 8 + 2 * 8, "its rows of this batch and of the two to come"


def test_a_process_alone_exchanges_nothing() -> None:
    alone, layer = Processes(), nn.Linear(2, 1)
    assert alone.first and alone.any(True, False) == [True, False]
    assert alone.average_gradients(list(layer.parameters()), {"loss": 2.0}) == {"loss": 2.0}
    alone.average([layer.weight])
    alone.leave()
