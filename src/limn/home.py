"""Where limn keeps what belongs to a user: models, the signing key, what was checked."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home() -> Path:
    """Return the user's data folder: LIMN_HOME where it is set, else where the operating system keeps such data."""
    if named := os.environ.get("LIMN_HOME"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "limn"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "limn"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "limn"
