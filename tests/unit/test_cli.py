"""The command line as made from functions: reading values, help, errors, printing."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from limn import cli
from limn.errors import FaceError, InputError


@dataclass(frozen=True)
class Done:
    picture: Path
    seeds: tuple[int, ...]
    changes: Mapping[str, float]
    kind: str
    pixels: bytes = field(default=b"", metadata={"json": False})


def work(
    picture: Annotated[str | Path, "The picture."],
    *,
    seeds: Annotated[tuple[int, ...], "Which."] = (0, 1),
    set: Mapping[str, float] = {},
    face: int | str = 0,
    names: Sequence[str] = (),
    kind: Literal["one", "two"] = "one",
    out: Path | None = None,
    failing: str = "",
) -> Done:
    """Do the work.

    Longer words about it.
    """
    if failing == "face":
        raise FaceError(f"{picture} holds\nno face")
    if failing == "disk":
        raise OSError(28, "No space left on device", "/full/out.png")
    if failing == "stop":
        raise KeyboardInterrupt
    if failing == "bug":
        raise ZeroDivisionError("a bug")
    return Done(Path(picture), seeds, dict(set), f"{kind} {face!r} {names} {out}")


def quick(photo: Path | None = None, /) -> str:
    """Say which photo."""
    return str(photo)


@pytest.fixture(autouse=True)
def _commands(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"work": f"{__name__}:work", "quick": f"{__name__}:quick", "deep": {"work": f"{__name__}:work"}}
    monkeypatch.setattr(cli, "COMMANDS", here)
    monkeypatch.setattr(cli, "GROUPS", {"deep": "A group."})


def test_values_are_read_as_the_hints_say(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["work", "a.png", "--seeds", "0-2,9", "--set", "smile=1.5", "--set", "yaw=-1", "--face", "all", "--names", "x", "--json"]
    assert cli.main(args) == 0
    done = json.loads(capsys.readouterr().out)
    assert done == {"picture": "a.png", "seeds": [0, 1, 2, 9], "changes": {"smile": 1.5, "yaw": -1.0}, "kind": "one 'all' ('x',) None"}


def test_defaults_reach_the_function(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["work", "a.png", "--json", "--face", "2"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["seeds"], done["changes"], done["kind"]) == ([0, 1], {}, "one 2 () None")
    assert cli.main(["quick"]) == 0
    assert capsys.readouterr().out == "None\n"
    assert cli.main(["quick", "b.png"]) == 0
    assert capsys.readouterr().out == "b.png\n"


def test_people_read_one_line_per_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deep", "work", "a.png", "--set", "smile=1.5"]) == 0
    assert capsys.readouterr().out.splitlines() == ["picture  a.png", "seeds    0, 1", "changes  smile 1.5", "kind     one 0 () None"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["wrok"], "did you mean 'work'?"),
        (["work"], "PICTURE"),
        (["work", "a", "--seeds", "x"], "0-15 or 1,5,9"),
        (["work", "a", "--seeds", "5-1"], "the smaller first"),
        (["work", "a", "--set", "smile"], "smile=1.5"),
        (["work", "a", "--kind", "three"], "'one', 'two'"),
        (["work", "a", "--nonsense"], "--nonsense"),
        (["work", "a", "--failing", "face"], "a holds no face"),
        (["work", "a", "--failing", "disk"], "/full/out.png: No space left on device"),
        (["deep", "wrk"], "did you mean 'work'?"),
    ],
)
def test_mistakes_are_one_line_and_code_2(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("limn: ") and said.err.count("\n") == 1, said.err
    assert words in said.err


def test_an_interruption_is_130_and_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["work", "a", "--failing", "stop"]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["work", "a", "--failing", "face", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.main(["work", "a", "--failing", "bug"])


def test_help_names_every_option_with_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["work", "--help"]) == 0
    said = capsys.readouterr().out
    for words in ("Do the work.", "PICTURE", "The picture.", "--seeds", "Which.", "0,1", "--json", "--debug"):
        assert words in said
    assert cli.main(["deep"]) == 0
    assert "Do the work." not in capsys.readouterr().err


def test_every_real_command_can_be_made(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.undo()
    targets = {name: target for name, target in cli.COMMANDS.items() if isinstance(target, str)}
    for group, members in cli.COMMANDS.items():
        targets |= {} if isinstance(members, str) else {f"{group} {name}": target for name, target in members.items()}
    for name, target in targets.items():
        assert cli.summary(target), f"{target} has no docstring, or is not there"
        assert cli.main([*name.split(), "--help"]) == 0, name


def test_help_and_import_need_no_torch_and_little_time() -> None:
    code = "import sys, limn, limn.cli; limn.cli.main(['--help']); assert not {'torch', 'numpy', 'PIL'} & set(sys.modules), 'heavy'"
    best = 9.0
    for _ in range(3):  # processor time: the wall clock of a busy machine says nothing
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < 0.5, f"limn --help took {best:.2f} s at best; 0.3 s is wanted on a quiet machine"


def test_numbers() -> None:
    assert cli.numbers("3") == (3,)
    with pytest.raises(InputError, match="whole numbers"):
        cli.numbers("-1")


def test_the_first_of_several_processes_speaks_for_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for rank, speaks in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert cli.main(["quick"]) == 0
        assert bool(capsys.readouterr().out) is speaks, rank
