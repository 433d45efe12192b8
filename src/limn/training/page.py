"""The page that a terminal shows while a run goes on; where there is no terminal, plain lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from math import isfinite
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from limn.training.journal import FACTS
from limn.training.loop import Report

BARS = "▁▂▃▄▅▆▇█"
KEPT = 40  # values in a curve
LIVE, PLAIN = 2.0, 20.0  # seconds between two looks of the page, and between two lines


def interval() -> float:
    """Seconds between two reports: a page that is looked at moves often, a log need not."""
    return LIVE if Console().is_terminal else PLAIN


@contextmanager
def shown(title: str, steps: int, console: Console | None = None) -> Iterator[Report]:
    """Yield what the loop reports to: it redraws the page in a terminal, and prints lines elsewhere."""
    console = console or Console()
    if not console.is_terminal:
        yield lambda line: console.print(plain(line), soft_wrap=True, highlight=False, markup=False)
        return
    curves: dict[str, list[float]] = {}
    with Live(console=console, auto_refresh=False) as live:

        def report(line: dict[str, Any]) -> None:
            if "images" not in line:
                live.console.print(Text(plain(line), style="bold yellow" if "warning" in line else ""))
                return
            for name in line.keys() - set(FACTS):
                curves[name] = [*curves.get(name, []), line[name]][-KEPT:]
            live.update(page(title, steps, line, curves), refresh=True)

        yield report


def plain(line: dict[str, Any]) -> str:
    """One line of text for one line of the log."""
    if "images" not in line:
        return f"{line['step']:>8,}  " + (f"WARNING: {line['warning']}" if "warning" in line else line["note"])
    rest = "  ".join(f"{name} {value:.4g}" for name, value in line.items() if name not in FACTS and not name.startswith("rate/"))
    return f"{line['step']:>8,}  {line['images'] / 1000:,.1f} kimg  {line['images_per_second']:.1f}/s  {left(line['eta'])} left  {rest}"


def left(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    return str(timedelta(seconds=round(min(seconds, 8.64e9))))


def page(title: str, steps: int, line: dict[str, Any], curves: dict[str, list[float]]) -> Group:
    """The whole page: how far, how fast, and every figure with its recent course."""
    head = Text(
        f"{title}  step {line['step']:,} of {steps:,}  {line['images'] / 1000:,.1f} kimg  {line['images_per_second']:.1f} images/s  "
        f"{left(line['eta'])} left  {line['memory']:.1f} GB"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, values in curves.items():
        table.add_row(name, f"{values[-1]:.4g}", curve(values))
    return Group(head, ProgressBar(total=steps, completed=line["step"], width=60), table)


def curve(values: list[float]) -> str:
    """Values as a row of bars between their least and largest."""
    finite = [value for value in values if isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = (high - low) or 1.0
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1))] if isfinite(value) else " " for value in values)
