"""Where models lie: the box that comes with the package, the user's store, and paths."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from limn.errors import WeightsError
from limn.home import home
from limn.weights.arrays import safetensors_metadata

BOX = Path(__file__).parents[1] / "box"
SUFFIX = ".safetensors"


def store() -> Path:
    """Return the user's folder of models, `models` in the data folder; it need not exist."""
    return home() / "models"


def names() -> dict[str, Path]:
    """Return the models that have a name here, with their files: those in the box win over those in the store."""
    found = {path.stem: path for folder in (store(), BOX) for path in sorted(folder.glob(f"*{SUFFIX}")) if _is_model(path)}
    return dict(sorted(found.items()))


def _is_model(path: Path) -> bool:
    """Whether a file is one of ours that holds networks, not directions; a damaged one counts, so that its use says what is wrong."""
    try:
        return "limn" in (safetensors_metadata(path) or {})
    except WeightsError:
        return True


def resolve(path_or_name: str | Path) -> Path:
    """Return the file of a model named in the box or the store, or at a path; WeightsError suggests the nearest name."""
    text = str(path_or_name)
    known = names()
    if text in known:
        return known[text]
    path = Path(text).expanduser()
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, not a weight file: name a file in it")
    if path.exists():
        return path
    near = get_close_matches(text, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known here are {', '.join(known) or 'none'}; see `limn models list`"
    raise WeightsError(f"there is no model or file {text!r}: {hint}")
