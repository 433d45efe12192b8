"""The edits of e4e's repository: along principal components, and along factorised weights."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from limn.latent.directions import Direction, move
from limn.latent.factor import Basis, factorise, set_coordinate


def ganspace_edit(case: Any) -> dict[str, np.ndarray]:
    latents, comp, mean, std = (torch.from_numpy(case.inputs[name]) for name in ("latents", "comp", "mean", "std"))
    basis = Basis(mean.flatten(), comp.flatten(1), std, torch.ones_like(std))
    edits = case.spec["kwargs"]["edit_directions"]
    rows = [set_coordinate(w[None], basis, c, strength, range(first, last)) for w in latents for c, first, last, strength in edits]
    return {"edited": torch.cat(rows).numpy()}


def sefa_edit(case: Any) -> dict[str, np.ndarray]:
    """The published edit moves the layers one below those it factorised; layer 0 is left out of the list."""
    state = {name: torch.from_numpy(array) * torch.from_numpy(case.inputs["columns"]) for name, array in case.weights().items()}
    layers = [layer - 1 for layer in case.spec["kwargs"]["layers"] if layer > 0]
    rows, values = factorise(torch.cat([state[f"convs.{layer}.conv.modulation.weight"] for layer in layers]))
    theirs, order = case.outputs["vectors"], case.outputs["order"]
    vectors, numbers = np.empty_like(theirs), np.empty_like(case.outputs["values"])
    vectors[order], numbers[order] = rows.numpy(), values.numpy()
    vectors *= np.sign((vectors * theirs).sum(1, keepdims=True))
    latent = torch.from_numpy(case.inputs["latent"])
    said = {name: float(number) for name, number in re.findall(r"(\w+)=(-?[\d.]+)", case.spec["call"])}
    first, last, steps = said.get("start_distance", -15.0), said.get("end_distance", 15.0), int(said.get("step", 10))
    edited = [
        move(latent, Direction("row", torch.from_numpy(vectors[row]), layers=tuple(layers)), distance)
        for row in range(int(said.get("semantics", 1)))
        for distance in np.linspace(first, last, steps)
    ]
    found = {"vectors": vectors, "values": numbers, "order": np.argsort(-numbers), "layers": np.array(layers)}
    return found | {"edited": torch.cat(edited).numpy()}


EDITS = {"editings.ganspace.edit": ganspace_edit, "editings.sefa": sefa_edit}
