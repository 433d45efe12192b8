"""How the cases of Poisson blending call ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from limn.faces import blending

if TYPE_CHECKING:
    from parity import Case

FLAGS = {"normal": 1, "mixed": 2, "monochrome": 3, "normal_wide": 9, "mixed_wide": 10, "monochrome_wide": 11}
GUIDANCE: dict[str, blending.Guidance] = {"src": "front", "max": "larger", "avg": "mean"}


def clone(case: Case) -> dict[str, np.ndarray]:
    source, destination, mask = (case.inputs[name] for name in ("source", "destination", "mask"))
    centre = tuple(case.spec["kwargs"]["center"])
    return {name: blending.seamless(source, destination, mask, centre, FLAGS[name]) for name in case.outputs}


def equation(case: Case) -> dict[str, np.ndarray]:
    source, destination, mask = (case.inputs[name] for name in ("source", "destination", "mask"))
    (row, column), (top, left) = case.spec["kwargs"]["mask_on_src"], case.spec["kwargs"]["mask_on_tgt"]
    front = source[row : row + mask.shape[0], column : column + mask.shape[1]]
    inside = mask >= 128
    inside[[0, -1]] = inside[:, [0, -1]] = False
    made = {}
    for name in case.outputs:
        guidance = GUIDANCE[name.partition("_")[0]]
        if name.endswith("_image"):
            made[name] = blending.poisson(front, destination, mask, (top, left), guidance)
        else:
            made[name] = blending.solve(front, destination, inside, (top, left), guidance)
    return made


MODULES = {"cv2.seamlessClone": clone, "fpie.process.EquProcessor, numpy backend": equation}
