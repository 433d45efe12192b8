"""Weight files: read safely, recognise, convert, save, and find by name; nothing in a file is ever executed."""

from limn.weights.native import Loaded, load, save
from limn.weights.reader import Contents, read
from limn.weights.recognise import Match, adopt, adopt_file, recognise

__all__ = ["Contents", "Loaded", "Match", "adopt", "adopt_file", "load", "read", "recognise", "save"]
