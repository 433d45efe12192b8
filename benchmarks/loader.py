"""Images a second of the loader alone: reading, decoding, resizing, mirroring and batching, without a model.

python benchmarks/loader.py portraits128.zip --size 128 [--memory 0] prints one line. With `--memory 0` nothing is kept, so that
every picture is decoded anew as in a set that does not fit into memory.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace

from limn.training.datasets import open_dataset
from limn.training.datasets.ahead import workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--memory", type=float, default=2.0, help="GiB of decoded pictures that are kept")
    asked = parser.parse_args()
    began = time.perf_counter()
    data = open_dataset("images", asked.data, SimpleNamespace(size=asked.size), True, memory=asked.memory)
    opened, busy = time.perf_counter(), time.process_time()
    for step in range(asked.steps):
        data.batch(step, asked.batch, 0)
    seconds, busy = time.perf_counter() - opened, time.process_time() - busy
    count = asked.steps * asked.batch
    print(
        f"{asked.data.name} at {asked.size}, memory {asked.memory:g} GiB, {workers()} threads: {len(data)} pictures opened in "
        f"{opened - began:.1f} s ({len(data) / (opened - began):.0f}/s); "
        f"{count / seconds:.0f} images/s, {count / busy:.0f} per second of processor"
    )


if __name__ == "__main__":
    main()
