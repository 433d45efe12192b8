"""RetinaFace's network, priors, decoding, loss and suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from limn.blocks.boxes import nms
from limn.models.perception import retinaface as ours
from limn.weights import adopt

if TYPE_CHECKING:
    from parity import Case

Arrays = dict[str, np.ndarray]


def network(case: Case) -> Arrays:
    model = adopt({name: torch.from_numpy(array) for name, array in case.weights().items()}, "retinaface").model
    bgr = torch.from_numpy(case.inputs["x"]).float().permute(0, 3, 1, 2)
    height, width = bgr.shape[2:]
    with torch.inference_mode():
        raw = model(bgr - bgr.new_tensor(ours.MEAN_BGR)[:, None, None])
    prior = ours.priors(height, width)
    size = torch.tensor([width, height], dtype=torch.float32)
    made = {
        "loc": raw.boxes,
        "conf": raw.classes.softmax(-1),
        "landmarks": raw.points,
        "priors": prior,
        "boxes": ours.boxes_of(raw.boxes[0], prior) * size.repeat(2),
        "points": ours.points_of(raw.points[0], prior) * size.repeat(5),
    }
    return {name: made[name].numpy() for name in case.outputs}


def loss(case: Case) -> Arrays:
    height, width = case.spec["kwargs"]["image_size"]
    raw = ours.Raw(*(torch.from_numpy(case.inputs[name]) for name in ("loc", "conf", "landmarks")))
    targets = [torch.from_numpy(case.inputs[f"targets{index}"]) for index in range(len(raw.boxes))]
    settings = case.spec["kwargs"]
    losses = ours.multibox_loss(raw, ours.priors(height, width), targets, settings["overlap_thresh"], settings["neg_pos"])
    return {f"loss_{name}": losses[part].numpy() for name, part in (("box", "box"), ("class", "class"), ("landmarks", "points"))}


def suppression(case: Case) -> Arrays:
    rows = torch.from_numpy(next(iter(case.inputs.values())))
    last_pixel_inside = torch.tensor([0.0, 0.0, 1.0, 1.0])
    threshold = case.spec["kwargs"]["threshold"]
    return {
        "kept_plain": nms(rows[:, :4], rows[:, 4], threshold).numpy(),
        "kept_inclusive": nms(rows[:, :4] + last_pixel_inside, rows[:, 4], threshold).numpy(),
    }


MODULES = {
    "models.retinaface.RetinaFace (phase test), layers.functions.prior_box.PriorBox, utils.box_utils.decode/decode_landm": network,
    "layers.modules.multibox_loss.MultiBoxLoss": loss,
    "utils.nms.py_cpu_nms and utils.box_utils.nms": suppression,
}
