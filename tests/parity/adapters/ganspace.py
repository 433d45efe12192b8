"""GANSpace: incremental and full PCA, their statistics, and the edits along the components."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.latent.directions import Direction, move
from limn.latent.factor import Basis, incremental_pca, pca, set_coordinate, spread


def like(ours: Tensor, theirs: np.ndarray) -> Tensor:
    """Turn every row of ours the way that theirs points: the sign of a component is arbitrary."""
    return ours * (ours * torch.from_numpy(theirs)).sum(1, keepdim=True).sign()


def components(case: Any) -> dict[str, np.ndarray]:
    samples, other = (torch.from_numpy(case.inputs[name]) for name in ("samples", "other"))
    count, theirs, call = case.spec["kwargs"]["components"], case.outputs, case.spec["call"]
    batches = samples.chunk(case.spec["kwargs"]["batches"])
    basis, full = incremental_pca(batches, count), pca(samples, count)
    rows = like(basis.components, theirs["comp"])
    directions = np.random.RandomState(2).normal(size=theirs["random_dirs"].shape)
    directions = torch.from_numpy(directions / np.linalg.norm(directions, axis=1, keepdims=True)).float()
    sigma = spread(rows, other)
    ours = {
        "comp": rows,
        "stdev": basis.stdev,
        "var_ratio": basis.ratio,
        "mean": basis.mean[None],
        "lat_comp": rows,
        "lat_stdev": sigma,
        "pca_comp": like(full.components, theirs["pca_comp"]),
        "pca_stdev": full.stdev,
        "pca_var_ratio": full.ratio,
        "random_dirs": directions,
        "random_stdev": spread(directions, batches[-1]),
    }
    ends = [tuple(map(float, pair)) for pair in re.findall(r"linspace\((-?[\d.]+), (-?[\d.]+)", call)]
    chosen = re.search(r"layers (\d+)\.\.(\d+) of", call)
    layers = tuple(range(int(chosen[1]), int(chosen[2]) + (0 if "excluded" in call else 1))) if chosen else None
    frames, depth = theirs["edit"].shape[:2]
    w = other[:1, None].expand(-1, depth, -1)
    direction = Direction("component 1", sigma[1] * rows[1], layers=layers)
    ours["edit"] = torch.cat([move(w, direction, s) for s in np.linspace(*ends[0], frames)])
    centred = Basis(basis.mean, rows, sigma, basis.ratio)
    steps = np.linspace(*ends[1], len(theirs["edit_centered"]))
    ours["edit_centered"] = torch.cat([set_coordinate(w, centred, 1, s, range(depth)) for s in steps])
    return {name: ours[name].numpy() for name in theirs}


MODULES = {"estimators, decomposition, notebooks.notebook_utils": components}
