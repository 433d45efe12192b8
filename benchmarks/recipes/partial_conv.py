"""Partial convolutions on free portraits, measured as DeepFill v2 is."""

from __future__ import annotations

from recipes.deepfill_v2 import DATA, OPTIONS, measure

__all__ = ["DATA", "OPTIONS", "PRESET", "measure"]
PRESET = "portraits64"
