"""How the command line prints what a verb returned: as JSON, or as a short table of its fields."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

LONG = 100  # characters: longer lists are printed one item per line


def as_json(result: Any) -> str:
    """Return a result as JSON; fields of dataclasses whose metadata say `json` False are left out."""
    return json.dumps(plain(result), indent=2, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Return a value as dictionaries, lists, strings, numbers and None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in _fields(value).items()}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, Sequence | set) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON knows no infinity
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def show(result: Any, console: Console | None = None) -> None:
    """Print a result for people: one line per field, one table per list of records."""
    console = console or Console(soft_wrap=True, highlight=False)
    if result is None:
        return
    if isinstance(result, str):
        console.print(result, markup=False)
    elif isinstance(result, Mapping) or (is_dataclass(result) and not isinstance(result, type)):
        _show_fields(result if isinstance(result, Mapping) else _fields(result), console)
    elif isinstance(result, Sequence) and result and all(is_dataclass(row) for row in result):
        _show_rows(result, console)
    else:
        console.print(_words(result) or "none", markup=False)


def _show_fields(values: Mapping[str, Any], console: Console) -> None:
    width = max((len(_label(name)) for name in values), default=0)
    for name, value in values.items():
        if value is None or value in ("", (), [], {}):
            continue
        if isinstance(value, Sequence) and not isinstance(value, str) and all(is_dataclass(row) for row in value):
            console.print(_label(name), style="bold")
            _show_rows(value, console)
        elif isinstance(value, Mapping | tuple | list) and not _numbers(value) and (len(_words(value)) > LONG or "\n" in _words(value)):
            items = [f"{key}: {_words(item)}" for key, item in value.items()] if isinstance(value, Mapping) else map(_words, value)
            for index, item in enumerate(items):
                console.print(Text(f"{_label(name) if not index else '':<{width}}  ", style="bold").append(item, style="not bold"))
        else:
            console.print(Text(f"{_label(name):<{width}}  ", style="bold").append(_words(value), style="not bold"))


def _show_rows(rows: Sequence[Any], console: Console) -> None:
    columns = [name for name in _fields(rows[0]) if any(getattr(row, name) not in (None, "", (), {}) for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(_label(name), overflow="fold", no_wrap=name == "name")
    for row in rows:
        table.add_row(*(Text(_words(getattr(row, name))) for name in columns))
    console.print(table)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value) if field.metadata.get("json", True)}


def _label(name: str) -> str:
    return name.replace("_", " ")


def _words(value: Any) -> str:
    """Return a value as a person writes it."""
    if is_dataclass(value) and not isinstance(value, type):
        value = _fields(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{_label(str(name))} {_words(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return (", " if not any(isinstance(item, Path) for item in value) else "\n").join(_words(item) for item in value)
    return "" if value is None else str(value)


def _numbers(value: Any) -> bool:
    """Whether a value is a list of nothing but numbers (seeds, say), which reads best in one line however long."""
    return not isinstance(value, Mapping) and all(isinstance(item, int | float) for item in value)
