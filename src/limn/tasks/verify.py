"""`limn verify`: was this image made or changed by limn, by which model, from what."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any


def verify(image: Annotated[Path, "An image or a clip."]) -> dict[str, Any]:
    """Say where an image or a clip comes from: what its content credentials say and what the watermark in its pixels says.

    `by_limn` sums them up. No mark is no proof: both can be removed, and other programs leave none.
    """
    from limn.media.marks import verify as read_marks

    marks = read_marks(image)
    return {
        "file": str(image),
        "by_limn": marks.by_limn,
        "summary": _summary(marks.credentials, marks.watermark),
        "credentials": asdict(marks.credentials) if marks.credentials else None,
        "watermark": asdict(marks.watermark) if marks.watermark else None,
    }


def _summary(credentials: Any, watermark: Any) -> str:
    """Put both findings into one sentence."""
    said = []
    if credentials is None:
        said.append("no content credentials")
    elif not credentials.valid:
        said.append("content credentials that do not hold: the file was changed after it was signed")
    else:
        origin = credentials.origin
        what = f"{origin['how']} with {origin.get('model') or 'limn'}" if origin else credentials.actions[-1].get("description", "")
        sources = ", ".join(source["name"] for source in origin.get("sources", ())) or ", ".join(credentials.ingredients)
        said.append(f"valid content credentials by {credentials.generator}: {what}" + (f" from {sources}" if sources else ""))
    if watermark is None:
        said.append("no limn watermark in the pixels")
    elif not watermark.how:
        said.append("a limn watermark too weak to be read")
    else:
        said.append(f"a limn watermark: {watermark.how}, model {watermark.model_sha256}...")
    return "; ".join(said)
