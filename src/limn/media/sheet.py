"""Contact sheets: many images as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont


def grid(images: Sequence[Image.Image], columns: int | None = None, gap: int = 2, labels: Sequence[str] | None = None) -> Image.Image:
    """Lay images out row by row on white, each centred in a cell of the largest size, `gap` pixels apart, with a caption under each.

    Without `columns` the sheet is about square. ValueError for no images or another number of labels.
    """
    if not images:
        raise ValueError("a grid needs at least one image")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels were given for {len(images)} images: give one each")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    width, height = max(image.width for image in images), max(image.height for image in images)
    font = ImageFont.load_default(max(10, min(24, width // 10)))
    caption = sum(font.getmetrics()) + 4 if labels and isinstance(font, ImageFont.FreeTypeFont) else 16 if labels else 0
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + caption + gap) - gap), "white")
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left, top = index % columns * (width + gap), index // columns * (height + caption + gap)
        sheet.paste(image.convert("RGB"), (left + (width - image.width) // 2, top + (height - image.height) // 2))
        if labels:
            draw.text(
                (left + width // 2, top + height + 2), _fitted(draw, labels[index], font, width), fill="black", font=font, anchor="ma"
            )
    return sheet


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Shorten a caption until it is no wider than its cell."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
