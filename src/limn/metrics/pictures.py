"""The pictures of a folder or zip, by name and in order of name: sizes from their headers, pixels a batch at a time."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limn.errors import InputError
from limn.media import read_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
BATCH = 64  # pictures decoded and described at a time
TURNED = {5, 6, 7, 8}  # EXIF orientations that exchange width and height


class Pictures:
    """Pictures by name: the path in the folder or zip, without the suffix where that leaves names unique."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.archive = None if path.is_dir() else _archive(path)
        files = _in_folder(path) if self.archive is None else self.archive.namelist()
        kept = sorted(file for file in files if _is_picture(file))
        if not kept:
            raise InputError(f"{path} holds no picture: {', '.join(sorted(SUFFIXES))} are read")
        stems = [str(PurePosixPath(file).with_suffix("")) for file in kept]
        self.files: Mapping[str, str] = dict(zip(stems if len(set(stems)) == len(stems) else kept, kept, strict=True))

    @property
    def names(self) -> list[str]:
        """All names, in order."""
        return list(self.files)

    def where(self, name: str) -> str:
        """Return how a message names a picture."""
        return f"{self.path}/{self.files[name]}" if self.archive is None else f"{self.path}: {self.files[name]}"

    def data(self, name: str) -> bytes:
        """Return the bytes of a picture's file."""
        if self.archive is None:
            return (self.path / self.files[name]).read_bytes()
        try:
            return self.archive.read(self.files[name])
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise InputError(f"{self.where(name)} cannot be unpacked ({error}): pack the zip again") from error

    def size(self, name: str) -> tuple[int, int]:
        """Return width and height, upright, as the header says."""
        source = self.path / self.files[name] if self.archive is None else io.BytesIO(self.data(name))
        try:
            with Image.open(source) as picture:
                turned = picture.getexif().get(0x0112) in TURNED
                return (picture.height, picture.width) if turned else picture.size
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{self.where(name)} is no picture that can be read: remove or replace it") from error

    def pixels(self, name: str, size: int | None = None) -> np.ndarray:
        """Return the upright RGB pixels (H, W, 3) uint8, resized to (size, size) by Lanczos if asked."""
        return self.decode(name, self.data(name), size)

    def decode(self, name: str, data: bytes, size: int | None = None) -> np.ndarray:
        """Decode what `data` returned; the error names the file."""
        try:
            with Image.open(io.BytesIO(data)) as opened:
                image = read_image(opened).image
        except (InputError, OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{self.where(name)} cannot be read ({error}): remove or replace it") from error
        if size is not None and image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.LANCZOS)
        return np.asarray(image)

    def batches(self, names: Sequence[str], size: int | None = None, batch: int = BATCH) -> Iterator[Tensor]:
        """Yield uint8 (n, 3, H, W), n up to `batch`, in the order of names; where the size changes, a batch ends early."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(names), batch):
                part = names[start : start + batch]
                read = [self.data(name) for name in part]
                yield from stacked(pool.map(lambda name, data: self.decode(name, data, size), part, read))


def stacked(pixels: Iterable[np.ndarray]) -> Iterator[Tensor]:
    """Yield runs of equally large pictures (H, W, 3) as uint8 (n, 3, H, W)."""
    run: list[np.ndarray] = []
    for picture in pixels:
        if run and picture.shape != run[0].shape:
            yield _tensor(run)
            run = []
        run.append(picture)
    if run:
        yield _tensor(run)


def floats(images: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Bring bytes (N, 3, H, W) to float32 in [-1, 1]."""
    return images.to(device).float().div_(127.5).sub_(1)


def _tensor(run: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(run)).permute(0, 3, 1, 2).contiguous()


def _in_folder(path: Path) -> list[str]:
    return [str(PurePosixPath(file.relative_to(path))) for file in path.rglob("*") if file.is_file()]


def _is_picture(file: str) -> bool:
    """Whether the suffix is a picture's; hidden files, and those that macOS puts into zips, are not."""
    path = PurePosixPath(file)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _archive(path: Path) -> zipfile.ZipFile:
    if not path.exists():
        raise InputError(f"there is no folder or zip {path}: check the name")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is neither a folder nor a zip of pictures: give one of these")
    return zipfile.ZipFile(path)
