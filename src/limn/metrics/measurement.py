"""A number and how it came about: no measure is printed or stored without its protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from limn.media import atomic


@dataclass(frozen=True)
class Measurement:
    """One measure of one thing."""

    name: str  # "frechet", "psnr", ...
    value: float
    protocol: Mapping[str, str | int | float] = field(default_factory=dict)  # features and their hash, resize, counts, convention

    def __str__(self) -> str:
        terms = ", ".join(f"{name} {value}" for name, value in self.protocol.items())
        return f"{self.name:28} {self.value:10.4f}" + (f"   ({terms})" if terms else "")


def write(path: Path, measurements: Iterable[Measurement], about: Mapping[str, Any]) -> None:
    """Store measurements as JSON, with what they are about; whole or not at all. The PSNR of equal pictures is "inf" there."""
    rows = [asdict(each) | {"value": each.value if math.isfinite(each.value) else str(each.value)} for each in measurements]
    with atomic(path) as beside:
        beside.write_text(json.dumps({"about": dict(about), "measurements": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
