"""GFPGAN on 64-pixel portraits of people held out: the figures of recipes/gpen.py."""

from __future__ import annotations

from recipes.gpen import measure

__all__ = ["DATA", "OPTIONS", "PRESET", "measure"]

DATA = "portraits128.zip"
PRESET = "portraits64"
OPTIONS = ()
