"""Progress of long work: a bar on stderr, none where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int, float], None]]:
    """Show a bar and yield what moves it: a function of the step, from 0, and of the loss."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)

        def move(step: int, loss: float) -> None:
            progress.update(task, completed=step + 1, description=f"{what} {loss:.3f}")

        yield move


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield items under a bar."""
    from rich.console import Console
    from rich.progress import track as under

    console = Console(stderr=True)
    yield from under(items, what, total=total, console=console, transient=True, disable=not console.is_terminal)
