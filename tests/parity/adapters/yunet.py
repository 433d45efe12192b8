"""YuNet's network and decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from limn.models.perception import yunet as ours
from limn.weights import adopt

if TYPE_CHECKING:
    from parity import Case

Arrays = dict[str, np.ndarray]


def network(case: Case) -> Arrays:
    model = adopt({name: torch.from_numpy(array) for name, array in case.weights().items()}, "yunet").model
    bgr = torch.from_numpy(case.inputs["x"]).float().permute(0, 3, 1, 2)
    with torch.inference_mode():
        raw = model(bgr)
    cells = ours.grid(bgr.shape[2], bgr.shape[3])
    score = raw.classes.sigmoid() * raw.objects.sigmoid()
    made = {
        "cls": raw.classes,
        "obj": raw.objects,
        "bbox": raw.boxes,
        "kps": raw.points,
        "boxes": ours.boxes_of(raw.boxes, cells),
        "points": ours.points_of(raw.points, cells),
        "score": score,
        "opencv_score": score.sqrt(),
    }
    return {name: made[name].numpy().reshape(expected.shape) for name, expected in case.outputs.items()}


MODULES = {"YuNetBackbone + TFPN + YuNet_Head of mmdet.models, state names with the prefixes backbone., neck., bbox_head.": network}
