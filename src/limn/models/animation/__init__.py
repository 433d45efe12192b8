"""Animation: a still portrait that moves as somebody else does."""
