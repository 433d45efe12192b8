"""The README says what is: its table is made from the cards, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from limn import VERBS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_table_of_systems_is_that_of_the_cards() -> None:
    rewritten = runpy.run_path(str(ROOT / "docs" / "systems.py"))["rewritten"]
    assert rewritten(README) == README, "the table of systems is stale: run `python docs/systems.py`"


def test_every_command_shown_is_a_verb() -> None:
    shown = set(re.findall(r"^limn (\w+)", README, re.MULTILINE))
    assert shown, "the README shows commands"
    assert shown <= {*VERBS, "models", "data"}, f"not verbs: {shown - {*VERBS, 'models', 'data'}}"


def test_every_local_link_leads_to_a_file() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())]
    missing = [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()]
    assert not missing, f"dead links: {missing}"
