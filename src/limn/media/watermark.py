"""An imperceptible mark in the pixels: a periodic pattern whose relative shifts carry 32 bits, read without the original.

The picture is covered with square tiles, a power of two of them along its long side, so that a rescaled copy is read by trying the few
powers. Each tile is a sum of fixed pseudo-random patterns in a middle band of frequencies: one says where the tile begins, six others are
shifted cyclically, each by one of 256 steps, which is one byte of payload and check sum. All tiles of a region are added before the
patterns are looked for, so an area of one to four tiles is enough, and pixels outside a mask stay as they are.

Shift-coded tiles: Kalker, Depovere, Haitsma, Maes: A Video Watermarking System for Broadcast Monitoring. SPIE 3657, 1999.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]

TILE = 64  # canonical pixels on a side
BAND = (7.0, 19.0)  # cycles per tile: below lies the picture itself, above what JPEG and rescaling remove
STEP = 4  # canonical pixels between neighbouring shifts; 16 x 16 shifts per pattern are one byte
SYMBOLS = 6  # bytes: four of payload, two of check sum
SMALLEST = 64  # pixels of the picture that a tile is at least wide
LEAST = 32  # the same that is looked for, in a picture made smaller since
MOST = 64  # tiles along the long side at most; 16 where the whole picture is marked
LEVELS = (1.4, 2.45)  # root mean square change of a pixel, in 255ths, least and most: 45 and 40.2 dB
ENOUGH = 20.0  # standard deviations of the weakest pattern at which no more change is spent
LEGIBLE = 4.5  # the same, below which no bytes are put in
PRESENT = 6.5  # standard deviations at which the position pattern alone counts as found
FOUND = (5.5, 8.0)  # the same in a part of a picture, where every place is tried: with bytes, and alone
DISTINCT = 5.0  # of the sum of tiles at the position, against the sum at all shifts
READ = (3.5, 3.8)  # of the position pattern, and of the six others on average, at which a check sum that holds is believed
WINDOW = 768  # canonical pixels of a part of a picture that are looked at
ROUNDS = 5  # of measuring and evening out when a mark is put in
KEY = 0x11A4
LARGE = 24_000_000  # pixels of a picture beyond which it is marked in strips
COPY = 6_000_000  # pixels of the smaller copy by which it is decided how
STRIP = 4_000_000  # pixels of a strip


@dataclass(frozen=True)
class Found:
    """What was read from a picture."""

    payload: int | None  # 32 bits; None where the mark is there but too weak to be read
    score: float  # standard deviations of the position pattern above chance
    box: tuple[float, float, float, float]  # left, top, right, bottom of the marked region, in fractions of the picture


def embed(image: Image.Image, payload: int, mask: NDArray[np.generic] | None = None, strength: float = 1.0) -> Image.Image:
    """Return a copy of an RGB image that carries 32 bits of payload; with a mask (H, W), 0 to 1, pixels where it is 0 stay identical.

    As little is changed as is enough: 1.4/255 root mean square where there is room (45 dB), 2.45/255 at most (40.2 dB), times `strength`.
    ValueError for a payload that does not fit or a mask of another size.
    """
    if image.width * image.height > LARGE:
        return _in_strips(image, payload, mask, strength)
    return Pen(image, payload, mask, strength).embed(image, mask)


def _in_strips(image: Image.Image, payload: int, mask: NDArray[np.generic] | None, strength: float) -> Image.Image:
    """Mark a large picture strip by strip, as strongly as a smaller copy of it needs: in floating point it would fill the memory."""
    if mask is not None:
        _check(image, mask)
    shrink = (COPY / (image.width * image.height)) ** 0.5
    size = round(image.width * shrink), round(image.height * shrink)
    image = image if image.mode == "RGB" else image.convert("RGB")
    small = image.resize(size, Image.Resampling.BOX)
    inside = None if mask is None else cv2.resize(np.asarray(mask, np.uint8 if mask.dtype == bool else mask.dtype), size)
    pen = Pen(small, payload, inside, strength)
    change = pen.change(np.asarray(small, np.float32), _weight(small, inside), pen.pattern)
    if change is None:
        return image.copy()
    factor, visible = change
    tiled, result, rows = _covered(image.size, payload, pen.count, pen.shares), image.copy(), max(STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        part = np.asarray(result.crop(box), np.float32)
        weight = 1 if mask is None else np.asarray(mask[box[1] : box[3]], np.float32)
        drawn = factor * _stretched(tiled, image.size, box) * _stretched(visible, image.size, box) * weight
        result.paste(Image.fromarray(np.clip(np.rint(part + drawn[..., None]), 0, 255).astype(np.uint8)), box)
    return result


def _stretched(small: Array, size: tuple[int, int], box: tuple[int, int, int, int]) -> Array:
    """Return the part within `box` of a plane (h, w) that is stretched to (width, height)."""
    across, down = small.shape[1] / size[0], small.shape[0] / size[1]
    place = np.array([[across, 0, 0.5 * across - 0.5], [0, down, (box[1] + 0.5) * down - 0.5]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    shape = box[2] - box[0], box[3] - box[1]
    return cv2.warpAffine(small, place, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[return-value]


class Pen:
    """A payload with the strength that one image needs for it; it may mark others of the same size, such as the frames of a clip."""

    def __init__(self, image: Image.Image, payload: int, mask: NDArray[np.generic] | None = None, strength: float = 1.0) -> None:
        if not 0 <= payload < 1 << 32:
            raise ValueError(f"the payload {payload} does not fit into 32 bits")
        pixels, weight = np.asarray(image.convert("RGB"), np.float32), _weight(image, mask)
        self.payload, self.strength = payload, strength
        self.count = _tiles(image.size, weight)
        self.level, self.shares = LEVELS[0], np.ones(1 + SYMBOLS)
        if (weight > 0.5).any() and self._settle(pixels, weight) < LEGIBLE:
            self.shares = np.eye(1 + SYMBOLS)[0]  # too little room for bytes: all that can be said is that the mark is there
            self._settle(pixels, weight)
        self.pattern = _pattern(image.size, payload, self.count, self.shares)

    def embed(self, image: Image.Image, mask: NDArray[np.generic] | None = None) -> Image.Image:
        """Return a marked copy of an image of the size that the pen was made for."""
        pixels, weight = np.asarray(image.convert("RGB"), np.float32), _weight(image, mask)
        return Image.fromarray(self._drawn(pixels, weight, self.pattern).astype(np.uint8))

    def _settle(self, pixels: Array, weight: Array) -> float:
        """Find the least level, and the shares of the patterns, at which all of them are seen; return the score of the weakest."""
        used = self.shares > 0
        self.level = LEVELS[0]
        for attempt in range(ROUNDS):
            marked = self._drawn(pixels, weight, _pattern(_size(pixels), self.payload, self.count, self.shares))
            scores = _scores(_luma(marked), self.count, self.payload)
            weakest = max(float(scores[used].min()), 1)
            if weakest >= ENOUGH or attempt == ROUNDS - 1:
                break
            self.level = min(self.level * max(1.05, ENOUGH / weakest), LEVELS[1])
            # more of the patterns that the picture works against
            shares = self.shares * (max(float(scores[used].mean()), 1) / np.maximum(scores, 1)) ** 0.7
            self.shares = np.clip(shares / np.sqrt((shares[used] ** 2).mean()), 0.5 * used, 2 * used)
        return weakest

    def _drawn(self, pixels: Array, weight: Array, pattern: Array) -> Array:
        if (found := self.change(pixels, weight, pattern)) is None:
            return pixels
        factor, visible = found
        change = factor * pattern * visible * weight
        return np.where(weight[..., None] > 0, np.clip(np.rint(pixels + change[..., None]), 0, 255), pixels)

    def change(self, pixels: Array, weight: Array, pattern: Array) -> tuple[float, Array] | None:
        """Return the factor of the pattern and what it is multiplied by at each pixel (H, W); None where nothing may be changed."""
        inside = weight > 0.5
        if not inside.any():
            return None
        visible = _visibility(_luma(pixels))
        size = float(np.sqrt(np.mean((pattern * visible * weight)[inside] ** 2)))
        return self.strength * self.level / size, visible


def _weight(image: Image.Image, mask: NDArray[np.generic] | None) -> Array:
    if mask is None:
        return np.ones((image.height, image.width), np.float32)
    _check(image, mask)
    return mask.astype(np.float32)


def _check(image: Image.Image, mask: NDArray[np.generic]) -> None:
    if mask.shape != (image.height, image.width):
        raise ValueError(f"the mask is {mask.shape}, the image {(image.height, image.width)}: give one number per pixel")


def _size(pixels: Array) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _scores(luma: Array, count: int, payload: int) -> NDArray[np.float64]:
    """Return how far each pattern of `payload` stands above chance, in standard deviations, where the mark shows best."""
    seen = _sum(_residual(_canonical(luma, count)))
    fits = np.fft.fft2(seen.tile) * np.conj(_bases())
    maps = np.fft.ifft2(fits).real / np.sqrt(seen.power)
    return np.array([maps[0, 0, 0], *(m[s // 16 * STEP, s % 16 * STEP] for m, s in zip(maps[1:], _code(payload), strict=True))])


def detect(image: Image.Image, cropped: bool = True) -> Found | None:
    """Look for a mark in an image that may have been rescaled, compressed, mirrored or cropped since; None where there is none.

    Without `cropped` the slower search for a part of a marked picture (1 to 2 s) is left out.
    """
    luma = _luma(np.asarray(image.convert("RGB"), np.float32))
    views = luma, np.ascontiguousarray(luma[:, ::-1])
    best: Found | None = None
    for view in views:
        count = 1
        while count <= MOST and count * LEAST <= max(luma.shape):
            found = _read(_residual(_canonical(view, count)))
            if found is not None and found.payload is not None:
                return found
            if found is not None and (best is None or found.score > best.score):
                best = found
            count *= 2
    if cropped and min(luma.shape) >= 2 * SMALLEST:
        found = next((found for view in views if (found := _search(view)) is not None), None)
        return found if found is not None and (best is None or found.payload is not None) else best
    return best


def _tiles(size: tuple[int, int], weight: Array) -> int:
    """Return how many tiles lie along the long side: at least three across the marked region where they do not get too small."""
    rows, columns = np.flatnonzero(weight.max(1) > 0.5), np.flatnonzero(weight.max(0) > 0.5)
    extent = max(np.ptp(rows) + 1 if len(rows) else 1, np.ptp(columns) + 1 if len(columns) else 1)
    wanted = min(max(size) / SMALLEST, max(16, 3 * max(size) / extent), MOST)
    return 1 << max(0, int(np.log2(wanted)))


@cache
def _bases() -> NDArray[np.complex64]:
    """Return the spectra (7, 64, 64) of the patterns: flat in the band, random in phase, unit energy; the first is for position."""
    rows, columns = np.meshgrid(np.fft.fftfreq(TILE) * TILE, np.fft.fftfreq(TILE) * TILE, indexing="ij")
    ring = np.hypot(rows, columns)
    noise = np.fft.fft2(np.random.default_rng(KEY).standard_normal((1 + SYMBOLS, TILE, TILE)))
    spectra = np.where((ring >= BAND[0]) & (ring <= BAND[1]), noise / np.abs(noise), 0)
    return (spectra / np.sqrt((np.abs(spectra[0]) ** 2).mean())).astype(np.complex64)


def _code(payload: int) -> list[int]:
    """Return the six bytes that stand for a payload: itself and its CRC-16, both scrambled so that no payload is all zero."""
    word = payload.to_bytes(4, "big")
    whole = word + binascii.crc_hqx(word, KEY).to_bytes(2, "big")
    return [byte ^ (37 * place + 91) & 255 for place, byte in enumerate(whole)]


def _payload(symbols: list[int]) -> int | None:
    """Return the payload of six bytes; None where the check sum does not hold."""
    whole = bytes(byte ^ (37 * place + 91) & 255 for place, byte in enumerate(symbols))
    return int.from_bytes(whole[:4], "big") if binascii.crc_hqx(whole[:4], KEY) == int.from_bytes(whole[4:], "big") else None


def _tile(payload: int, shares: NDArray[np.float64]) -> Array:
    """Return the tile (64, 64) for a payload, of unit root mean square, with a share of each pattern."""
    bases = np.fft.ifft2(_bases()).real * shares[:, None, None]
    tile = bases[0] + sum(np.roll(base, (s // 16 * STEP, s % 16 * STEP), (0, 1)) for base, s in zip(bases[1:], _code(payload), strict=True))
    return (tile / tile.std()).astype(np.float32)


def _pattern(size: tuple[int, int], payload: int, count: int, shares: NDArray[np.float64]) -> Array:
    """Return the pattern (H, W) that covers a picture of `size` with `count` tiles along its long side."""
    return cv2.resize(_covered(size, payload, count, shares), size, interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def _covered(size: tuple[int, int], payload: int, count: int, shares: NDArray[np.float64]) -> Array:
    """Return the same at the size at which the tiles have 64 pixels a side."""
    width, height = _canonical_size(size, count)
    return np.tile(_tile(payload, shares), (-(-height // TILE), -(-width // TILE)))[:height, :width]


def _canonical_size(size: tuple[int, int], count: int) -> tuple[int, int]:
    scale = TILE * count / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _canonical(luma: Array, count: int) -> Array:
    """Return a picture rescaled so that `count` tiles of 64 pixels lie along its long side."""
    size = _canonical_size(_size(luma), count)
    shrinks = size[0] < luma.shape[1]
    return cv2.resize(luma, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)  # type: ignore[return-value]


def _luma(pixels: Array) -> Array:
    return pixels @ np.array([0.299, 0.587, 0.114], np.float32)


def _visibility(luma: Array) -> Array:
    """Return how much change an eye forgives at each pixel, relative: more in texture, less in the smooth."""
    reach = max(luma.shape) / 1024 + 2
    fine = luma - cv2.GaussianBlur(luma, (0, 0), reach)
    activity = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), reach))
    return np.clip(1 + activity / 12, 1, 2.5).astype(np.float32)


def _residual(luma: Array, band: tuple[float, float] = BAND) -> Array:
    """Return a band (cycles per 64 pixels), evened out over frequencies and places: where the picture is strong it says little."""
    padded = cv2.copyMakeBorder(luma, 16, 16, 16, 16, cv2.BORDER_REFLECT)
    rows, columns = np.fft.fftfreq(padded.shape[0])[:, None] * TILE, np.fft.rfftfreq(padded.shape[1])[None] * TILE
    ring = np.hypot(rows, columns)
    gain = np.clip((ring - band[0] + 2) / 2, 0, 1) * np.clip((band[1] + 3 - ring) / 3, 0, 1) * ring / band[1]  # pictures fall as 1/f
    kept = np.fft.irfft2(np.fft.rfft2(padded) * gain, padded.shape)[16:-16, 16:-16].astype(np.float32)
    evened = kept / (cv2.GaussianBlur(kept * kept, (0, 0), 3) + 1.5)  # the best weight for a mark of even strength in uneven noise
    reach = 3 * float(evened.std())
    return np.clip(evened, -reach, reach)


class _Sum(NamedTuple):
    """The tiles of a region, added up."""

    tile: Array  # (64, 64)
    power: float  # variance that a pattern of unit energy has in it by chance
    score: float  # standard deviations of the position pattern
    box: tuple[float, float, float, float]


def _read(residual: Array) -> Found | None:
    """Read the patterns where the position pattern shows best."""
    seen = _sum(residual)
    if seen.score < READ[0]:
        return None
    maps = _correlate(seen.tile)
    payload = _bytes(maps)
    # a picture that repeats itself in step with the tiles adds up as a mark does; then the position is no better than other shifts
    alone = seen.score >= PRESENT and maps[0, 0, 0] >= DISTINCT
    return Found(payload, seen.score, seen.box) if payload is not None or alone else None


def _bytes(maps: NDArray[np.float64]) -> int | None:
    """Return the payload of correlation maps (7, 64, 64) that begin at the position; None where it is not believed."""
    grid = maps[1:, ::STEP, ::STEP].reshape(SYMBOLS, -1)
    return _payload([int(symbol) for symbol in grid.argmax(1)]) if grid.max(1).mean() >= READ[1] else None


def _tiled(residual: Array) -> Array:
    """Return the tiles (rows, columns, 64, 64) of a residual, the last ones filled up with zeros."""
    rows, columns = (-(-n // TILE) for n in residual.shape)
    padded = np.zeros((rows * TILE, columns * TILE), np.float32)
    padded[: residual.shape[0], : residual.shape[1]] = residual
    return padded.reshape(rows, TILE, columns, TILE).transpose(0, 2, 1, 3)


def _sum(residual: Array) -> _Sum:
    """Add the tiles of the rectangle that shows the position pattern best."""
    tiles = _tiled(residual)
    spectra, position = np.fft.fft2(tiles), _bases()[0]
    hits, powers = (spectra * position.conj()).real.mean((2, 3)), (np.abs(spectra * position) ** 2).mean((2, 3)) / TILE**2
    score, (top, left, bottom, right) = _best_rectangle(hits, powers)
    height, width = residual.shape[0] / TILE, residual.shape[1] / TILE
    box = (left / width, top / height, min(right / width, 1.0), min(bottom / height, 1.0))
    region = slice(top, bottom), slice(left, right)
    return _Sum(tiles[region].sum((0, 1)), max(float(powers[region].sum()), 1e-9), score, box)


def _best_rectangle(hits: Array, energy: Array) -> tuple[float, tuple[int, int, int, int]]:
    """Return the highest score of any rectangle of tiles, and the rectangle (top, left, bottom, right).

    Without a mark a hit is a sum of `energy` independent squares, so its standard deviation is the root of energy per pixel.
    """
    sums, powers = (np.pad(a.cumsum(0).cumsum(1), ((1, 0), (1, 0))) for a in (hits, energy))
    rows, columns = hits.shape
    best, where = -np.inf, (0, 0, rows, columns)
    for height in range(1, rows + 1):
        for width in range(1, columns + 1):
            hit, power = (a[height:, width:] - a[:-height, width:] - a[height:, :-width] + a[:-height, :-width] for a in (sums, powers))
            scores = hit / np.sqrt(np.maximum(power, 1e-9))
            at = int(scores.argmax())
            if scores.flat[at] > best:
                top, left = divmod(at, scores.shape[1])
                best, where = float(scores.flat[at]), (top, left, top + height, left + width)
    return best, where


def _correlate(tile: Array) -> NDArray[np.float64]:
    """Return how well each pattern fits a sum of tiles at each of its shifts (7, 64, 64), in standard deviations of chance."""
    fits = np.fft.fft2(tile) * np.conj(_bases())
    return np.fft.ifft2(fits).real / np.sqrt((np.abs(fits) ** 2).mean((1, 2), keepdims=True) + 1e-12) * TILE


def _search(luma: Array) -> Found | None:
    """Look for a mark of unknown scale and place: the tiles repeat, so the picture resembles itself at their distance."""
    for period in _periods(luma):
        for fine in np.linspace(0.994, 1.006, 5):
            scale = TILE / (period * fine)
            size = round(luma.shape[1] * scale), round(luma.shape[0] * scale)
            scaled = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
            maps = _correlate(_tiled(_residual(scaled[:WINDOW, :WINDOW])).sum((0, 1)))  # type: ignore[arg-type]
            score = float(maps[0].max())
            if score < FOUND[0]:
                continue
            down, right = divmod(int(maps[0].argmax()), TILE)
            payload = _bytes(np.roll(maps, (-down, -right), (1, 2)))
            if payload is not None or score >= FOUND[1]:
                return Found(payload, score, (0.0, 0.0, 1.0, 1.0))
    return None


def _periods(luma: Array) -> list[float]:
    """Return the likeliest widths of a tile in pixels, by the self-resemblance of the picture, at most six."""
    residual = _residual(luma, (3.5, 24.0))
    shape = [cv2.getOptimalDFTSize(2 * n) for n in residual.shape]
    alike = np.fft.irfft2(np.abs(np.fft.rfft2(residual, shape)) ** 2, shape).astype(np.float32)
    widths = 36 * 1.002 ** np.arange(700)  # to 145 pixels
    score = np.zeros(len(widths))
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0), (1, 2), (2, 1), (1, -2), (2, -1)):
        rows, columns = (widths * down).astype(np.float32), (widths * right).astype(np.float32) % shape[1]
        seen = cv2.remap(alike, columns[None], rows[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)[0]
        inside = (widths * down < residual.shape[0] * 0.8) & (widths * abs(right) < residual.shape[1] * 0.8)
        score += np.where(inside, seen, 0)
    best: list[float] = []
    for at in np.argsort(-score):
        if all(abs(widths[at] / other - 1) > 0.01 for other in best):
            best.append(float(widths[at]))
        if len(best) == 6:
            break
    return best
