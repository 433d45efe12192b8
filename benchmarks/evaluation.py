"""How long `limn evaluate A B` takes with every measure that it takes unasked, between the sets and between the pairs.

    python benchmarks/evaluation.py portraits128.zip lfw128.zip [--count 5000] [--threads 2] [--metrics fd-limn,ssim]

The pictures of the archives, one after the other, are put into two folders of `count` under numbers, so that every picture has a
counterpart. Printed are the measures, the seconds on the clock, and those of the processor: neighbours lengthen the first alone.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import limn
from limn.metrics.pictures import SUFFIXES


def pictures(archives: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Suffix and bytes of every picture."""
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in SUFFIXES:
                    yield Path(name).suffix, archive.read(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--metrics")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    every = pictures(asked.archives)
    with tempfile.TemporaryDirectory() as folder:
        sides = [Path(folder) / name for name in ("a", "b")]
        for side in sides:
            side.mkdir()
            for number, (suffix, data) in enumerate(itertools.islice(every, asked.count)):
                (side / f"{number:06d}{suffix}").write_bytes(data)
        began, busy = time.perf_counter(), time.process_time()
        found = limn.evaluate(*sides, metrics=asked.metrics)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
    for each in found.measurements:
        print(f"{each.name:48} {each.value:10.4f}")
    print(
        f"{asked.count} against {asked.count} pictures, {len(found.measurements)} measures, {asked.threads} thread(s): {seconds:.0f} s, "
        f"{busy:.0f} s of processor"
    )


if __name__ == "__main__":
    main()
