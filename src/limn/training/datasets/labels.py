"""What is known of each picture: labels.csv, NVIDIA's dataset.json, CelebA's attribute list, or the .json and .cls of a shard.

A row is a dict of texts with at least `file`. The labels of dataset.json and of .cls are in the column `label`, as JSON.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from limn.errors import InputError
from limn.training.datasets.order import is_held_out
from limn.training.datasets.source import TABLES, Source, key_of

Row = dict[str, str]
FILE = ("file", "image_id", "filename")  # columns that may hold the name of the picture
LEVELS = {"0": 0.0, "1": 1.0, "-1": 0.0}  # what an attribute may be


def rows(source: Source) -> list[Row]:
    """Return one row per picture, `{"file": name}` where nothing is known; InputError for a label file with errors."""
    found, problems = read_rows(source)
    if problems:
        (file, said), more = problems[0], len(problems) - 1
        raise InputError(f"{source.path}: {file}: {said}" + (f" (and {more} more)" if more else ""))
    return [row or {"file": name} for name, row in zip(source.names, found, strict=True)]


def read_rows(source: Source) -> tuple[list[Row | None], list[tuple[str, str]]]:
    """Return a row or None per picture, and what is wrong: (file, in words)."""
    if source.shards:
        return _beside(source)
    table, problems = table_of(source)
    plain = Counter(PurePosixPath(name).name for name in source.names)
    last = {name: PurePosixPath(name).name for name in source.names}
    found: list[Row | None] = []
    for name in source.names:  # dataset.json names a picture in full, labels.csv mostly by its last part
        row = table.get(name, {}) | (table.get(last[name], {}) if plain[last[name]] == 1 else {})
        found.append(row or None)
    return found, problems


def table_of(source: Source) -> tuple[dict[str, Row], list[tuple[str, str]]]:
    """Return the rows of all label files by the name that they give, and what is wrong with them."""
    table: dict[str, Row] = {}
    problems: list[tuple[str, str]] = []
    for name in source.others:
        at = PurePosixPath(name)
        if at.name not in TABLES or len(at.parts) > 2:
            continue
        try:
            text = source.read(name).decode("utf-8-sig")
            read = _nvidia if at.name == "dataset.json" else _celeba if at.suffix == ".txt" else _csv
            for row in read(text):
                table.setdefault(row["file"], {}).update(row)
        except _LabelError as error:
            problems += [(name, said) for said in error.args]
        except UnicodeDecodeError:
            problems.append((name, "is not UTF-8 text: save it as UTF-8"))
    return table, problems


class _LabelError(Exception):
    """What is wrong with one label file, one argument per problem."""


def _csv(text: str) -> list[Row]:
    lines = csv.reader(io.StringIO(text))
    header = next(lines, [])
    column = next((name for name in FILE if name in header), None)
    if column is None:
        raise _LabelError(f"has no column 'file'; its columns are {', '.join(header) or 'none'}")
    found: list[Row] = []
    wrong: list[str] = []
    seen: dict[str, int] = {}
    for cells in lines:
        if not cells:
            continue
        row = dict(zip(header, cells, strict=False))
        if len(cells) != len(header):
            wrong.append(f"line {lines.line_num} has {len(cells)} cells, the header {len(header)}")
        elif row[column] in seen:
            wrong.append(f"line {lines.line_num} names {row[column]}, as line {seen[row[column]]} does")
        else:
            seen[row[column]] = lines.line_num
            found.append(row if column == "file" else {"file": row.pop(column)} | row)
    if wrong:
        raise _LabelError(*wrong)
    return found


def _nvidia(text: str) -> list[Row]:
    """Rows of NVIDIA's dataset.json: {"labels": [["00000/img00000000.png", 6], ...]}, or vectors for numbers, or null for none."""
    try:
        pairs = json.loads(text).get("labels") or []
        return [{"file": str(file), "label": json.dumps(label)} for file, label in pairs]
    except (ValueError, TypeError, AttributeError) as error:
        raise _LabelError(f'is not of the form {{"labels": [["00000/img.png", 6], ...]}} ({error})') from error


def _celeba(text: str) -> list[Row]:
    """Rows of list_attr_celeba.txt: a count, the names, then `000001.jpg -1 1 ...`; -1 becomes 0."""
    lines = text.splitlines()
    names = lines[1].split() if len(lines) > 1 else []
    found, wrong = [], []
    for number, line in enumerate(lines[2:], 3):
        file, *values = line.split() or [""]
        if not file:
            continue
        if len(values) != len(names) or not set(values) <= {"-1", "0", "1"}:
            wrong.append(f"line {number} has {len(values)} values, expected {len(names)} of -1 and 1")
        found.append({"file": file} | dict(zip(names, ("1" if value == "1" else "0" for value in values), strict=False)))
    if wrong:
        raise _LabelError(*wrong)
    return found


def _beside(source: Source) -> tuple[list[Row | None], list[tuple[str, str]]]:
    """Rows of shards: KEY.json is the row, KEY.cls a label; both belong to every picture of that key."""
    known: dict[str, Row] = {}
    problems: list[tuple[str, str]] = []
    for name in source.others:
        if not name.endswith((".json", ".cls")):
            continue
        try:
            value = json.loads(source.read(name))
            fields = {"label": value} if name.endswith(".cls") else dict(value)
            texts = {key: item if isinstance(item, str) else json.dumps(item) for key, item in fields.items()}
            known.setdefault(key_of(name), {}).update(texts)
        except (ValueError, TypeError) as error:
            problems.append((name, f"is not understood ({error}): a JSON object is expected, a whole number in .cls"))
    found = [known.get(key_of(name)) for name in source.names]
    return [None if row is None else {"file": name} | row for name, row in zip(source.names, found, strict=True)], problems


def chosen(source: Source, known: Sequence[Row], train: bool | None, where: Sequence[str] = ()) -> list[int]:
    """Return the numbers of the pictures of the training share, of the held-out one, or (None) of both that meet the conditions.

    A twentieth is held out, by the column `identity`, else by `file`.
    """
    tests = [condition(text) for text in where]
    fit = [n for n, row in enumerate(known) if (train is None or is_held_out(group(row)) != train) and all(test(row) for test in tests)]
    if not fit:
        if where:
            raise InputError(f"{source.path}: no picture fits {' and '.join(where)}: check the conditions against labels.csv")
        raise InputError(
            f"{source.path}: the {'held-out' if train is False else 'training'} share of its {len(known)} pictures is empty: add some"
        )
    return fit


def group(row: Row) -> str:
    """Return what decides together with whom a picture is held out."""
    return row.get("identity") or row["file"]


def condition(text: str) -> Callable[[Mapping[str, str]], bool]:
    """Turn `column=value`, `column>number` or `column<number` into a test of a row."""
    match = re.fullmatch(r"(\w+)([=<>])(.*)", text)
    if not match:
        raise InputError(f"condition {text!r} is not understood: write column=value, column>number or column<number")
    column, sign, value = match.groups()

    def test(row: Mapping[str, str]) -> bool:
        if column not in row:
            raise InputError(f"condition {text!r}: labels.csv has no column {column!r}; it has {', '.join(row)}")
        if sign == "=":
            return row[column] == value
        try:
            number, bound = float(row[column] or "nan"), float(value)
        except ValueError:
            raise InputError(f"condition {text!r}: {row[column]!r} of {row['file']} is no number: use column=value") from None
        return number > bound if sign == ">" else number < bound

    return test


def vectors(source: Source, known: Sequence[Row], column: str, length: int = 0) -> np.ndarray:
    """Return the labels of a column as (N, C) float32: vectors as they are, whole numbers and names as one-hot of C classes.

    `length` C, 0: as many as there are. InputError names the first picture whose label is missing, out of range or of another length.
    """
    values = [as_label(row.get(column, "")) for row in known]
    for row, value in zip(known, values, strict=True):
        if value in (None, ""):
            raise InputError(f"{source.path}: {row['file']} has no label {column!r}: give it one, or select with where")
    if all(isinstance(value, list) for value in values):
        return _stacked(source, known, values, length)  # type: ignore[arg-type]
    if not all(isinstance(value, int) for value in values):  # names: numbered in the order of the alphabet
        numbers = {name: index for index, name in enumerate(sorted({str(value) for value in values}))}
        values = [numbers[str(value)] for value in values]
    classes = length or max(int(value) for value in values) + 1  # type: ignore[arg-type]
    for row, value in zip(known, values, strict=True):
        if not 0 <= int(value) < classes:  # type: ignore[arg-type]
            raise InputError(f"{source.path}: {row['file']} has the label {value}; expected 0 to {classes - 1}")
    return np.eye(classes, dtype=np.float32)[np.array(values, int)]


def _stacked(source: Source, known: Sequence[Row], values: Sequence[list[float]], length: int) -> np.ndarray:
    expected = length or len(values[0])
    for row, value in zip(known, values, strict=True):
        if len(value) != expected or not all(isinstance(number, int | float) and np.isfinite(number) for number in value):
            raise InputError(f"{source.path}: {row['file']} has a label of {len(value)} values; expected {expected} finite numbers")
    return np.array(values, np.float32)


def as_label(text: str) -> int | list[float] | str | None:
    """Read a label: a whole number, a list of numbers, or a name."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, list) or (isinstance(value, int) and not isinstance(value, bool)) else text
