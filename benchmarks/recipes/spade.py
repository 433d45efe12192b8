"""Portraits painted from label maps drawn of face meshes, in styles read out of portraits: 64 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.faces.drawn import labels
from limn.metrics.sliced import sliced_wasserstein
from limn.models.records import seeded
from limn.training.datasets import open_dataset
from limn.weights import load
from recipes.frechets import frechet_limn, frechet_thumbnails

DATA = "portraits128.zip"
PRESET = "portraits64"
OPTIONS = ["--where", "chroma>3"]


@torch.no_grad()
def measure(model: Path, data: Path) -> dict[str, float]:
    """Return figures for people who were held out: distances to their portraits, and how well a picture keeps to its label map.

    `fd_limn` has drawn styles (the features are also those of the recipe's perceptual loss, which favours it; `thumbs` and `swd`,
    in tone and texture, are not), `fd_limn_own` and `l1_own` (levels of 255) those that the encoder reads; `kept` is the share of the
    map's pixels about the face that the mesh of the picture draws alike, `kept_photo` what the portraits themselves reach.
    """
    generator, encoder = load(model, part="generator"), load(model, part="encoder").model
    held = open_dataset("drawn", data, generator.config, False, where=["chroma>3"])
    batch = held.batch(0, len(held), 0)
    maps = F.one_hot(batch["mask"], generator.config.classes).movedim(-1, 1).float()
    drawn = torch.cat([generator.model.translate(part, seeded(index)) for index, part in enumerate(maps.split(32))])
    own = torch.cat(
        [generator.model(part, encoder(shown)[0]) for part, shown in zip(maps.split(32), batch["image"].split(32), strict=True)]
    )
    figures = {"fd_limn": frechet_limn(drawn, batch["image"]), "fd_limn_own": frechet_limn(own, batch["image"])}
    figures |= {"thumbs": frechet_thumbnails(drawn, batch["image"]), "swd": sliced_wasserstein(drawn, batch["image"]).mean}
    figures["l1_own"] = float((own - batch["image"]).abs().mean()) * 127.5
    return figures | {"kept": kept(drawn, batch["mask"]), "kept_photo": kept(batch["image"], batch["mask"]), "people": float(len(held))}


def kept(images: Tensor, masks: Tensor) -> float:
    """Return the share of pixels inside the maps' faces that maps drawn from the pictures' own meshes have alike."""
    size = images.shape[-1]
    fitted = F.interpolate(images, size=(128, 128), mode="bilinear", align_corners=False)
    network = load("limn-mesh").model
    meshes = torch.cat([network.landmarks(part) for part in fitted.split(32)]).float().numpy()
    found = np.stack([labels((mesh[:, :2] + 0.5) * (size / 128) - 0.5, (size, size)) for mesh in meshes])
    inside = masks.numpy() > 0
    return float((found == masks.numpy())[inside].mean())
