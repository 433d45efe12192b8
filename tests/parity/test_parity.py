"""Every parity case that the repository carries, one test each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import check  # noqa: E402

CASES = list(check.cases([HERE / "cases"]))


@pytest.mark.parametrize("folder", CASES, ids=[f"{case.parent.name}/{case.name}" for case in CASES])
def test_case(folder: Path) -> None:
    result = check.check(folder)
    assert not result.fault, str(result)


def test_there_are_cases() -> None:
    assert len(CASES) >= 9, "tests/parity/cases has lost its cases"
