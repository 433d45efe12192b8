"""Threads that work ahead of whoever reads their results, by a bounded number of items."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def workers(asked: int = 0) -> int:
    """Return how many threads to use: what is asked, else one per core that this process may use, at most 16."""
    return asked or min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int = 0) -> Iterator[R]:
    """Yield work(item) of every item, in order; at most four results per thread are in progress or wait to be taken."""
    count = workers(threads)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(count, "limn-data") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 4 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
