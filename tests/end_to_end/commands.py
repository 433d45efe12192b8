"""What a command line did, for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def done(self) -> dict[str, Any]:
        """What `--json` printed."""
        assert self.code == 0, self.err
        return json.loads(self.out)


Run = Callable[..., Ran]
