"""`limn demo`: everything limn does with one photograph, on one page."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image

from limn.errors import InputError
from limn.tasks.blend import blend
from limn.tasks.edit import Edited, edit, known_directions
from limn.tasks.generate import generate
from limn.tasks.invert import Inverted, invert
from limn.tasks.portrait import load_generator

WANTED = {"smile": (1.5, -1.5), "yaw": (1.5, -1.5), "mouth_open": (1.5,), "eyes_open": (-1.5,), "age": (1.5,), "gender": (1.5,)}
STEPS = 100  # of the inversion: enough to be close, and quick
PANEL = 440  # pixels: height of the photographs in the strip
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#222;background:#fafafa}
h1{font-weight:300;font-size:2.6rem;margin:0}h2{font-weight:500;margin:2.5rem 0 .5rem}p{margin:.3rem 0 1rem;max-width:46rem}
img,video{border-radius:6px;max-width:100%}.strip{display:flex;gap:8px;overflow-x:auto}figure{margin:0}figcaption{font-size:.85rem;color:#555}
.faces{image-rendering:auto;width:560px}code{background:#eee;padding:.1em .3em;border-radius:3px}"""


@dataclass(frozen=True)
class Shown:
    """What the page shows."""

    photo: str
    page: Path
    edits: int
    closeness: Mapping[str, float]
    files: tuple[Path, ...]
    seconds: float


def demo(
    photo: Annotated[Path | None, "A photograph; the astronaut of scikit-image if none is given."] = None,
    /,
    *,
    out: Annotated[Path, "The folder of the page."] = Path("demo"),
    device: Annotated[str, "auto, cpu, cuda or mps."] = "auto",
) -> Shown:
    """Make a page of sixteen new faces, an inversion, edits pasted into the photograph, a blend and a video."""
    from limn.media import writable

    began = time.monotonic()
    writable(out / "index.html") if out.is_dir() else writable(out)
    out.mkdir(exist_ok=True)
    taken = photo if photo is not None else _astronaut(out)
    sheet = generate(seeds=tuple(range(16)), out=out / "faces.png", columns=8, device=device)
    video = generate(seeds=(0, 3, 5, 9, 12), out=None, video=out / "wander.mp4", frames=25, device=device)
    inverted = invert(taken, out=out / "inversion.safetensors", method="both", steps=STEPS, device=device)
    edits = _edits(taken, out, device)
    blended = blend(out / "inversion.safetensors", "seed:5", out=out / "blend.png", strip=7, device=device)
    page = _write_page(out, taken, inverted, edits)
    files = (page, *sheet.files, *video.files, *inverted.files, *(file for made in edits for file in made.files), *blended.files)
    return Shown(str(taken), page, len(edits), inverted.closeness, files, time.monotonic() - began)


def _astronaut(out: Path) -> Path:
    """Write scikit-image's photograph of Eileen Collins (NASA, public domain) into the folder."""
    from limn.media import write_image

    try:
        from skimage.data import astronaut
    except ImportError as error:
        raise InputError("no photograph was given and scikit-image, which has one, is not installed: give a file") from error
    return write_image(Image.fromarray(astronaut()), out / "astronaut.png")


def _edits(photo: Path, out: Path, device: str) -> list[Edited]:
    """Edit the photograph once for each wanted change whose direction comes with the model."""
    known = known_directions(load_generator("limn-portraits64", device))
    wanted = [(name, strength) for name, strengths in WANTED.items() if name in known for strength in strengths]
    return [edit(photo, set={name: strength}, out=out / f"edit-{name}{strength:+g}.jpg", device=device) for name, strength in wanted]


def _write_page(out: Path, photo: Path, inverted: Inverted, edits: list[Edited]) -> Path:
    from limn.media import atomic, read_image, write_image

    original = read_image(photo)
    panels = [_panel(write_image(_small(original.image), out / "photo.jpg"), "the photograph")]
    for made in edits:
        (file,) = made.files
        name = ", ".join(f"{key} {value:+g}" for key, value in made.changes.items())
        panels.append(_panel(write_image(_small(made.images[0]), file.with_name(f"{file.stem}-small.jpg")), name))
    close = ", ".join(f"{name} {value:g}" for name, value in inverted.closeness.items())
    text = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>limn</title><style>{STYLE}</style>
<h1>limn</h1><p>Everything on this page was made on this machine, without network, from the small models in the box.</p>
<h2>Sixteen people who never were</h2><p><code>limn generate --seeds 0-15 --truncation 0.7 --out faces.png</code></p>
<img class="faces" src="faces.png" alt="sixteen generated faces">
<h2>The photograph, understood</h2><p><code>limn invert {html.escape(photo.name)} --out inversion.safetensors</code><br>
Left the face as it was found and aligned, right what the generator makes of its latent ({close}).</p>
<img src="inversion.png" width="400" alt="aligned face and its inversion">
<h2>Edits, in the photograph's own resolution</h2><p><code>limn edit {html.escape(photo.name)} --set smile=1.5 --out edited.jpg</code><br>
Only the face changes; every other pixel is the photograph's.</p><div class="strip">{"".join(panels)}</div>
<h2>From this face to another</h2><p><code>limn blend inversion.safetensors seed:5 --strip 7 --out blend.png</code></p>
<img src="blend.png" width="900" alt="seven steps between two faces">
<h2>Between faces</h2><p><code>limn generate --seeds 0,3,5,9,12 --video wander.mp4</code></p>
<video src="wander.mp4" width="256" autoplay loop muted controls></video></html>
"""
    page = out / "index.html"
    with atomic(page) as beside:
        beside.write_text(text, encoding="utf-8")
    return page


def _small(image: Image.Image) -> Image.Image:
    scale = min(1.0, PANEL / image.height)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS)


def _panel(file: Path, caption: str) -> str:
    return (
        f'<figure><img src="{html.escape(file.name)}" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )
