"""Carry the change that a small model makes in a face onto the photograph, in the photograph's own resolution.

The model shows a face before and after (its inversion and the edit of it). What changed in shape is carried as a warp:
the displacement of every mesh point, placed at the photograph's own mesh points and spread smoothly by a thin-plate spline,
the idea of Dorta et al., The GAN That Warped (CVPR 2020). What changed in colour beyond that is carried as a difference of
which only the low frequencies are kept. The photograph's own detail is moved, never replaced, save where the edit shows
what the photograph hides (an opened mouth, opened eyes) or the reverse: there the model's own pixels are blended in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from limn.faces.masks import smoothstep

GRID = 256  # pixels a side on which a change is described
COARSE = 64  # pixels a side on which the spline is evaluated; what it spreads is smooth
STIFFNESS = 2e-4  # regularisation of the spline: how far it may miss a point, for meshes are noisy
BAND = 0.16  # how far outside the face a change fades to nothing, in crop sides
TRUST = 55.0  # levels of 255 by which photograph and inversion may differ before the colour change is doubted
ROUGH = 7.0  # levels of finer detail beside a colour change by which it is doubted: edges that missed each other, not light
GREY = 2.5  # levels by which the tint of a photograph varies, below which it counts as grey, toned or not
FINEST = 0.008  # standard deviation of the finest colour change, in crop sides; at least 1.3 pixels of the model
BROAD = 0.07  # standard deviation, in crop sides, above which a change of colour counts as tone
HAIR = 0.6  # how far above the hairline the hair is taken to reach, in heights of the forehead

HAIRLINE, BROW = (10, 109, 338, 67, 297), 168  # the top of the canonical mesh, and its point between the brows
# Rings of the canonical face mesh that open and shut: what lies inside is shown or hidden by it.
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
EYE_A = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
EYE_B = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)


@dataclass(frozen=True)
class Change:
    """What a model changed in an aligned crop, described on a square grid that spans the crop."""

    flow: np.ndarray  # (GRID, GRID, 2): where each pixel of the result comes from, minus itself, in crop sides
    colour: np.ndarray  # (GRID, GRID, 3): what is added, in levels of 255
    shown: np.ndarray  # (GRID, GRID, 4): pixels of the model, levels of 255, and their weight 0..1
    mask: np.ndarray  # (GRID, GRID): 0 outside the face, 1 inside


def measure(
    crop: Image.Image, before: Image.Image, after: Image.Image, meshes: tuple[np.ndarray, np.ndarray, np.ndarray], tone: bool = True
) -> Change:
    """Describe the change from `before` to `after` (model pictures of one size) as it should befall `crop`, the aligned photo.

    `meshes` are those of crop, before and after, (478, 2 or more), in crop sides: 0 at the left and top edge, 1 at the right and bottom.
    Without `tone` the broad part of the colour change is left out: a change of expression does not tan the skin, whatever the model does.
    """
    own, old, new = (np.asarray(mesh, np.float32)[:, :2] for mesh in meshes)
    target = own + (new - old)
    mask = face_mask(own, target)
    fields = spread(target, np.concatenate([own - target, old - target, new - target], axis=1), mask)
    flow = unfold(fields[..., :2] * mask[..., None])
    photo, was, now = (_on_grid(picture) for picture in (crop, before, after))
    was, now = sample(was, fields[..., 2:4]), sample(now, fields[..., 4:6])
    warped = sample(photo, flow)
    offset = _mean(warped - was, mask)
    sigma = GRID * max(1.3 / before.width, FINEST)
    colour = cv2.GaussianBlur(now - was, (0, 0), sigma)
    doubt = np.abs(warped - was - offset).mean(-1) / TRUST, cv2.GaussianBlur(np.abs(now - was - colour).mean(-1), (0, 0), sigma) / ROUGH
    trust = cv2.GaussianBlur(np.exp(-(doubt[0] ** 2) - doubt[1] ** 2), (0, 0), sigma)
    if not tone:
        broad = _broad(colour, mask)
        colour, now = colour - broad, now - broad
    colour = colour * (mask * trust)[..., None]
    if (photo - _grey(photo)).std((0, 1)).mean() < GREY:  # a photograph of one tone keeps it
        colour, now, offset = (_grey(part) for part in (colour, now, offset))
    weight = sum((_replaced(own, target, ring) for ring in (INNER_LIPS, EYE_A, EYE_B)), np.zeros_like(mask))
    shown = np.concatenate([now + offset, (weight * mask)[..., None]], axis=-1)
    return Change(flow, colour, shown.astype(np.float32), mask)


def limited(change: Change, region: np.ndarray) -> Change:
    """Keep a change within a region of the crop, (GRID, GRID) 0..1, and where the change itself carries that region."""
    keep = np.maximum(region, sample(np.ascontiguousarray(region[..., None], np.float32), change.flow).reshape(region.shape))
    shown = np.concatenate([change.shown[..., :3], change.shown[..., 3:] * keep[..., None]], axis=-1)
    return Change(unfold(change.flow * keep[..., None]), change.colour * keep[..., None], shown, change.mask * keep)


def apply(photo: Image.Image, change: Change, matrix: np.ndarray, size: int) -> tuple[Image.Image, np.ndarray]:
    """Let a change befall an RGB photo, where `matrix` (2, 3) takes its pixels to those of the crop of `size` pixels a side.

    Returns the photo and the mask (H, W), 0 to 255, of what may have changed: where it is 0, pixels keep their very values.
    Works in strips, so that little memory is needed beside the photo.
    """
    pixels = np.array(photo)
    mask = np.zeros(pixels.shape[:2], np.uint8)
    to_grid = _then_scale(np.asarray(matrix, np.float64), size)
    from_sides = np.linalg.inv(np.asarray(matrix, np.float64)[:, :2]) * size  # a displacement in crop sides -> in photo pixels
    x0, y0, x1, y1 = _bounds(change.mask, to_grid, photo.size)
    height = max(16, 2**20 // max(1, x1 - x0))
    source = pixels.copy()
    for top in range(y0, y1, height):
        rows = slice(top, min(top + height, y1))
        pixels[rows, x0:x1], mask[rows, x0:x1] = _strip(source, change, (to_grid, from_sides), (x0, x1), rows)
    return Image.fromarray(pixels), mask


def mesh_in_sides(mesh: np.ndarray, size: int) -> np.ndarray:
    """Return mesh points (P, 2 or 3), given in pixels of a crop of `size`, as (P, 2) in crop sides."""
    return ((np.asarray(mesh, np.float32)[:, :2] + 0.5) / size).astype(np.float32)


def mesh_to_sides(mesh: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Return a mesh given in photo pixels as (P, 2) in sides of the crop that `matrix` leads to."""
    points = np.asarray(mesh, np.float64)[:, :2]
    return mesh_in_sides(points @ np.asarray(matrix)[:, :2].T + np.asarray(matrix)[:, 2], size)


def face_mask(*meshes: np.ndarray) -> np.ndarray:
    """Return (GRID, GRID) 0..1: 1 on faces and hair that meshes span, fading to 0 within BAND and before the crop's border."""
    hull = np.zeros((GRID, GRID), np.uint8)
    for mesh in meshes:
        hair = mesh[list(HAIRLINE)] + HAIR * (mesh[HAIRLINE[0]] - mesh[BROW])
        outline = cv2.convexHull(np.concatenate([mesh, hair]).astype(np.float32) * GRID - 0.5).round().astype(np.int32)
        cv2.fillConvexPoly(hull, outline, 1)
    outside = cv2.distanceTransform(1 - hull, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / (BAND * GRID)
    steps = np.arange(GRID, dtype=np.float32)
    border = smoothstep(np.minimum(steps, GRID - 1 - steps) / (0.06 * GRID))
    return (smoothstep(1 - outside) * np.minimum(border[:, None], border[None])).astype(np.float32)


def spread(sites: np.ndarray, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Spread values (P, C) given at sites (P, 2) over the grid by a stiff thin-plate spline that is 0 where the mask ends.

    Returns (GRID, GRID, C). Bookstein, Principal Warps (PAMI 1989), with ridge regularisation.
    """
    anchors = _mask_edge(mask)
    knots = np.concatenate([sites, anchors]).astype(np.float64)
    wanted = np.concatenate([values, np.zeros((len(anchors), values.shape[1]))])
    size = len(knots)
    system = np.zeros((size + 3, size + 3))
    system[:size, :size] = _kernel(knots, knots) + STIFFNESS * np.eye(size)
    system[:size, size:] = np.concatenate([np.ones((size, 1)), knots], axis=1)
    system[size:, :size] = system[:size, size:].T
    weights = np.linalg.solve(system, np.concatenate([wanted, np.zeros((3, values.shape[1]))]))
    centres = (np.stack(np.meshgrid(np.arange(COARSE), np.arange(COARSE)), axis=-1).reshape(-1, 2) + 0.5) / COARSE
    field = _kernel(centres, knots) @ weights[:size] + weights[size] + centres @ weights[size + 1 :]
    field = field.reshape(COARSE, COARSE, -1).astype(np.float32)
    return np.stack([cv2.resize(channel, (GRID, GRID), interpolation=cv2.INTER_CUBIC) for channel in np.moveaxis(field, -1, 0)], axis=-1)


def unfold(flow: np.ndarray, least: float = 0.15) -> np.ndarray:
    """Smooth a flow (GRID, GRID, 2), in sides, where it would fold the picture over: until areas shrink to `least` at most."""
    for sigma in (2, 3, 4, 6, 8, 12):
        folded = (stretch(flow) < least).astype(np.float32)
        if not folded.any():
            break
        near = np.minimum(cv2.GaussianBlur(folded, (0, 0), 2 * sigma) * 12, 1)[..., None]
        flow = flow + near * (cv2.GaussianBlur(flow, (0, 0), sigma) - flow)
    return flow


def stretch(flow: np.ndarray) -> np.ndarray:
    """Return the determinant of the map's Jacobian (GRID, GRID): 1 where areas keep their size, negative where it folds."""
    down, right = np.gradient(flow * GRID, axis=(0, 1))
    return ((1 + right[..., 0]) * (1 + down[..., 1]) - right[..., 1] * down[..., 0]).astype(np.float32)


def sample(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Return the picture (GRID, GRID, C) sampled at each pixel plus flow (in sides)."""
    y, x = np.mgrid[0:GRID, 0:GRID].astype(np.float32)
    return cv2.remap(picture, x + flow[..., 0] * GRID, y + flow[..., 1] * GRID, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _replaced(own: np.ndarray, target: np.ndarray, ring: tuple[int, ...]) -> np.ndarray:
    """Weigh (GRID, GRID) the inside of a ring by how far no warp can make it: opened, it shows what was hidden; shut, it must hide."""
    indices = list(ring)
    width = max(float(np.linalg.norm(np.ptp(target[indices], axis=0))), 1e-6)
    was, now = (abs(float(cv2.contourArea(mesh[indices]))) / width**2 for mesh in (own, target))
    opened, shut = (float(smoothstep((more - 1.6 * less - 0.03) / 0.06)) for more, less in ((now, was), (was, now)))
    weight = np.zeros((GRID, GRID), np.float32)
    outline = [(target[indices] * GRID * 16 - 8).round().astype(np.int32)]
    cv2.fillPoly(weight, outline, max(opened, shut), lineType=cv2.LINE_AA, shift=4)
    if shut > opened:  # the smooth warp leaves a slit where the lips should meet
        cv2.polylines(weight, outline, isClosed=True, color=shut, thickness=round(0.02 * GRID), lineType=cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(weight, (0, 0), 0.006 * GRID)


def _strip(
    source: np.ndarray,
    change: Change,
    maps: tuple[np.ndarray, np.ndarray],
    columns: tuple[int, int],
    rows: slice,
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of the changed photo and of its mask; `maps` take its pixels to grid pixels, and crop sides to its pixels."""
    x0, x1 = columns
    to_grid, from_sides = maps
    shape = (x1 - x0, rows.stop - rows.start)
    shifted = to_grid.copy()
    shifted[:, 2] += to_grid[:, :2] @ (x0, rows.start)

    def lift(field: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(field, shifted, shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    move = lift(change.flow) @ from_sides.T.astype(np.float32)
    y, x = np.mgrid[rows, x0:x1].astype(np.float32)
    moved = cv2.remap(source, x + move[..., 0], y + move[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    moved += lift(change.colour)
    if change.shown[..., 3].any():
        shown = lift(change.shown)
        moved += shown[..., 3:] * (shown[..., :3] - moved)
    mask = np.ceil(lift(change.mask) * 255).clip(0, 255).astype(np.uint8)
    return np.where(mask[..., None] > 0, moved.round().clip(0, 255).astype(np.uint8), source[rows, x0:x1]), mask


def _bounds(mask: np.ndarray, to_grid: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the photo's box (x0, y0, x1, y1), end excluded, that holds every pixel where the mask is not 0."""
    corners = cv2.boxPoints(cv2.minAreaRect(cv2.findNonZero((mask > 0).astype(np.uint8)).astype(np.float32)))
    inverse = cv2.invertAffineTransform(to_grid)
    box = corners @ inverse[:, :2].T + inverse[:, 2]
    margin = 2 * float(np.abs(inverse[:, :2]).max()) + 2
    low = np.clip(np.floor(box.min(0) - margin), 0, size).astype(int)
    high = np.clip(np.ceil(box.max(0) + margin), 0, size).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _mask_edge(mask: np.ndarray) -> np.ndarray:
    """Return up to 64 points (N, 2) in sides along the edge where the mask reaches 0."""
    contours, _ = cv2.findContours((mask > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    edge = max(contours, key=len)[:, 0].astype(np.float32)
    return (edge[:: max(1, len(edge) // 64)] + 0.5) / GRID


def _kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the thin-plate kernel r² log r (N, M) of two sets of points."""
    squared = ((left[:, None] - right[None]) ** 2).sum(-1)
    return 0.5 * squared * np.log(np.maximum(squared, 1e-12))


def _on_grid(picture: Image.Image) -> np.ndarray:
    """Return a picture as (GRID, GRID, 3) float32 in levels of 255."""
    return np.asarray(picture.convert("RGB").resize((GRID, GRID), Image.Resampling.BICUBIC), np.float32)


def _then_scale(matrix: np.ndarray, size: int) -> np.ndarray:
    """Return the matrix (2, 3) followed by the step from crop pixels to grid pixels; the centre of the first pixel is 0 in both."""
    scaled = matrix * (GRID / size)
    scaled[:, 2] += 0.5 * GRID / size - 0.5
    return scaled


def _grey(colours: np.ndarray) -> np.ndarray:
    """Return (..., 3) with the luma (BT.601) of each colour in all three channels."""
    return np.repeat(colours @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=-1)


def _mean(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean colour (3,) under a mask."""
    return (picture * mask[..., None]).sum((0, 1)) / max(float(mask.sum()), 1e-6)


def _broad(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return what is left of a picture (GRID, GRID, 3) at the scale of a cheek, of its values under a mask alone."""
    weight = cv2.GaussianBlur(mask, (0, 0), BROAD * GRID)[..., None]
    return cv2.GaussianBlur(picture * mask[..., None], (0, 0), BROAD * GRID) / np.maximum(weight, 1e-3)
