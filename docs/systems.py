"""Rewrites the table of systems in README.md from the cards: `python docs/systems.py`. A contract test fails when it is stale."""

from __future__ import annotations

from pathlib import Path

from limn import VERBS
from limn.models import SYSTEMS, system

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- systems -->", "<!-- /systems -->"


def table() -> str:
    """One row a system: what it is, what works in it here, and who may use its published weights."""
    rows = ["| system | paper | for | loads published weights | parity cases | trains | licence of published weights |"]
    rows += ["|---|---|---|---|---|---|---|"]
    for name in SYSTEMS:
        module = system(name)
        card = module.CARD
        paper = f"[{card.arxiv}](https://arxiv.org/abs/{card.arxiv}), {card.year}" if card.arxiv else f"{card.year}"
        cases = [p for p in (ROOT / "tests/parity/cases").glob(f"{name}*/*/spec.json") if p.parts[-3] in (name, f"{name}-rosinality")]
        layouts = sorted({row.layout for row in getattr(module, "PUBLISHED", [])})
        rows.append(
            f"| {card.title} (`{name}`) | {paper} | {', '.join(v for v in card.verbs if v in VERBS and v != 'train') or card.chapter} "
            f"| {', '.join(layouts) or '–'} | {len(cases) or '–'} | {'yes' if getattr(module, 'PRESETS', {}) else '–'} "
            f"| {card.weights_licence or 'none published'} |"
        )
    return "\n".join(rows)


def rewritten(readme: str) -> str:
    """The README with the table of today."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(rewritten(path.read_text()))
