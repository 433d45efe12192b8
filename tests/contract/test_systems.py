"""What every system and every file of the package agrees to: one test over each row of the table, one over each file."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints
from urllib.parse import urlsplit

import pytest
import torch
from torch import nn

import limn.models
from limn.models.records import Card, Entry, Preset, Published

SOURCE = Path(limn.models.__file__).parents[1]
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 600, 60  # lines
VERBS = {"generate", "invert", "edit", "translate", "restore", "inpaint", "stylize", "swap", "animate", "blend"}
VERBS |= {"train", "evaluate", "detect", "align", "verify", "parse"}


@pytest.fixture(params=list(limn.models.SYSTEMS))
def system(request: pytest.FixtureRequest) -> tuple[str, ModuleType]:
    return request.param, limn.models.system(request.param)


def test_docstring_names_the_paper_and_what_differs(system: tuple[str, ModuleType]) -> None:
    name, module = system
    text = module.__doc__ or ""
    assert len(text.split()) >= 20, f"{name}: the docstring says in a few sentences what the system is"
    assert "Differs" in text, f"{name}: the docstring says where the file differs from the paper (or: nothing)"
    if module.CARD.arxiv:
        assert module.CARD.arxiv in text, f"{name}: the docstring gives the arXiv number of the card"


def test_config_is_frozen_with_defaults_and_comments(system: tuple[str, ModuleType]) -> None:
    name, module = system
    config = module.Config
    assert dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen, f"{name}: Config is a frozen dataclass"
    try:
        config()
    except TypeError:
        assert module.PRESETS, f"{name}: a Config without defaults has presets"
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        assert field.name in hints, f"{name}: Config.{field.name} is typed"


def test_networks_are_built_from_a_config(system: tuple[str, ModuleType]) -> None:
    name, module = system
    assert module.NETWORKS, f"{name}: NETWORKS says which networks there are"
    for part, build in module.NETWORKS.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", part), f"{name}: {part!r} is a plain word: it prefixes names in files"
        assert callable(build), f"{name}: {part} is built by a function of Config"
    smallest = small(module)
    if smallest is None:
        return
    before = torch.get_rng_state()
    with torch.device("meta"):
        made = {part: build(smallest) for part, build in module.NETWORKS.items()}
    torch.set_rng_state(before)
    assert all(isinstance(network, nn.Module) for network in made.values()), f"{name}: every builder returns a module"


def small(module: ModuleType) -> Any:
    """Return a Config of the system to build with: its default, else its first preset."""
    try:
        return module.Config()
    except TypeError:
        return next(iter(module.PRESETS.values())).config


def test_card_is_consistent(system: tuple[str, ModuleType]) -> None:
    name, module = system
    card = module.CARD
    assert isinstance(card, Card) and card.name == name, f"{name}: the card bears the name of the table"
    chapters = get_args(get_type_hints(Card)["chapter"])
    assert card.chapter in chapters and f".{card.chapter}." in module.__name__, f"{name}: the chapter is the folder"
    assert card.title and 1990 <= card.year <= 2030, f"{name}: title and year"
    assert not card.arxiv or re.fullmatch(r"\d{4}\.\d{4,5}", card.arxiv), f"{name}: {card.arxiv!r} is no arXiv number"
    assert not card.source or re.fullmatch(r"[\w.-]+/[\w.-]+", card.source), f"{name}: source is owner/name"
    assert set(card.verbs) <= VERBS, f"{name}: {set(card.verbs) - VERBS} are no verbs"
    names = [entry.preset for entry in card.entries]
    assert len(set(names)) == len(names), f"{name}: entries are told apart by their presets"
    for entry in card.entries:
        check_entry(name, entry)


def check_entry(name: str, entry: Entry) -> None:
    assert urlsplit(entry.url).scheme == "https", f"{name}: {entry.url} is https"
    assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256), f"{name}: {entry.url} has a SHA-256"
    assert entry.bytes > 0 and entry.licence, f"{name}: {entry.url} has size and licence"


def test_published_rows_are_well_formed(system: tuple[str, ModuleType]) -> None:
    name, module = system
    for row in module.PUBLISHED:
        assert isinstance(row, Published), f"{name}: PUBLISHED holds Published records"
        assert row.part in module.NETWORKS, f"{name}: {row.part!r} is one of its networks"
        assert row.layout, f"{name}: every row says whose layout it is"
        assert row.recognise({}) is False, f"{name} {row.layout}: an empty state dict is nobody's, and the answer is a bool"
        assert row.recognise({"no.such.name": torch.zeros(1)}) is False, f"{name} {row.layout}: foreign names are not taken"
        for pattern, new in () if callable(row.names) else row.names:
            groups = re.compile(pattern).groups
            used = [int(number) for number in re.findall(r"\\(\d)", new or "")]
            assert max(used, default=0) <= groups, f"{name} {row.layout}: {new!r} names a group that {pattern!r} has not"


def test_presets_are_recipes(system: tuple[str, ModuleType]) -> None:
    name, module = system
    presets = getattr(module, "PRESETS", {})
    for preset_name, preset in presets.items():
        assert isinstance(preset, Preset) and isinstance(preset.config, module.Config), f"{name}: {preset_name} is a Preset of its Config"
        assert preset.batch > 0 and preset.steps > 0, f"{name}: {preset_name} has batch and steps"
    if "train" in module.CARD.verbs:
        assert presets and callable(module.objective), f"{name}: what can be trained has presets and an objective"


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert text.count("\n") <= LONGEST_FILE, f"{path.name} has {text.count(chr(10))} lines: at most {LONGEST_FILE}"
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(tree) if f.end_lineno}
    assert not {name: lines for name, lines in long.items() if lines > LONGEST_FUNCTION}, f"{path.name}: functions of more than 60 lines"
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    assert path.stem not in {"utils", "helpers", "common", "base"}, f"{path.name}: a file is named after what it holds"


def test_every_recipe_has_a_run_of_seconds_that_must_learn(system: tuple[str, ModuleType]) -> None:
    name, module = system
    runs = [file.read_text() for file in (Path(__file__).parents[1] / "learning").glob("test_*.py")]
    if getattr(module, "PRESETS", {}):
        assert any(f'"{name}"' in run for run in runs), f"{name}: it has recipes, so tests/learning trains it for a moment"
