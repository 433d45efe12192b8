"""Directions from labels: the hyperplane in latent space that separates what has an attribute from what has not.

Shen, Gu, Tang, Zhou: Interpreting the Latent Space of GANs for Semantic Face Editing. CVPR 2020, arXiv 1907.10786 (InterFaceGAN).
Differs: the support vector machine is our own solver, checked against the published one to its tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limn.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hyperplane:
    """normal . code + offset rises with the attribute."""

    normal: Tensor  # (d,) of unit length
    offset: float
    accuracy: float  # share of the codes it was fitted to that lie on their side; for a regression, the share of variance explained


def extremes(scores: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return the indices of the highest and of the lowest `share` of scores (N,): at most half each."""
    if not 0 < share <= 1:
        raise InputError(f"share {share} is not in (0, 1]: give the share of samples taken at each end")
    count = int(min(len(scores) * share, len(scores) // 2))
    if count < 1:
        raise InputError(f"{len(scores)} scores leave none at the ends with share {share}: measure more samples or raise the share")
    order = torch.argsort(scores.flatten(), descending=True, stable=True)
    return order[:count], order[len(order) - count :]


def separate(codes: Tensor, scores: Tensor, share: float = 0.02, c: float = 1.0) -> Hyperplane:
    """Fit InterFaceGAN's boundary: a linear support vector machine between the extreme scores. codes (N, d), scores (N,) or (N, 1)."""
    if len(codes) != len(scores):
        raise InputError(f"{len(codes)} codes and {len(scores)} scores: one score per code is needed")
    high, low = extremes(scores, share)
    x = codes[torch.cat([high, low])].double().cpu().numpy()
    y = np.concatenate([np.ones(len(high)), -np.ones(len(low))])
    weights, offset = svm(x, y, c)
    right = float(((x @ weights + offset > 0) == (y > 0)).mean())
    length = float(np.linalg.norm(weights))
    if length < 1e-12:
        raise InputError("the scores do not depend on the codes: no hyperplane separates high from low")
    return Hyperplane(torch.from_numpy(weights / length).float(), offset / length, right)


def svm(x: Array, y: Array, c: float = 1.0, tolerance: float = 1e-4, steps: int = 200_000) -> tuple[Array, float]:
    """Solve the linear soft-margin support vector machine: x (N, d), y (N,) of +-1 -> weights (d,), offset.

    Sequential minimal optimisation over the pair that violates optimality most (Keerthi et al. 2001; Fan, Chen, Lin 2005).
    """
    alpha, weights = np.zeros(len(y)), np.zeros(x.shape[1])
    squares = (x * x).sum(1)
    residual = y.copy()  # y - x . weights: equal on all free points at the optimum
    for _ in range(steps):
        up = np.where(y > 0, alpha < c, alpha > 0)
        down = np.where(y > 0, alpha > 0, alpha < c)
        i = int(np.argmax(np.where(up, residual, -np.inf)))
        j = int(np.argmin(np.where(down, residual, np.inf)))
        gap = residual[i] - residual[j]
        if gap < tolerance:
            break
        curvature = max(squares[i] + squares[j] - 2 * x[i] @ x[j], 1e-12)
        room_i = c - alpha[i] if y[i] > 0 else alpha[i]
        room_j = alpha[j] if y[j] > 0 else c - alpha[j]
        step = min(gap / curvature, room_i, room_j)
        alpha[i] = min(max(alpha[i] + y[i] * step, 0), c)
        alpha[j] = min(max(alpha[j] - y[j] * step, 0), c)
        weights += step * (x[i] - x[j])
        residual -= step * (x @ (x[i] - x[j]))
    return weights, float((residual[i] + residual[j]) / 2)


def regress(codes: Tensor, values: Tensor, ridge: float = 1e-2) -> Hyperplane:
    """Fit values (N,) linearly by codes (N, d), penalised by `ridge` times the mean variance of the codes: all samples count."""
    if len(codes) != len(values) or len(codes) < 3:
        raise InputError(f"{len(codes)} codes and {len(values)} values: at least three of each, in pairs, are needed")
    x, y = codes.double(), values.double().flatten()
    x_mean, y_mean = x.mean(0), y.mean()
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    penalty = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + penalty, x.T @ y)
    length, spread = weights.norm(), y.square().mean()
    if length == 0 or spread == 0:
        raise InputError("the values are all the same: there is nothing to fit a direction to")
    explained = 1 - (y - x @ weights).square().mean() / spread
    return Hyperplane((weights / length).float(), float((y_mean - x_mean @ weights) / length), float(explained))


def logistic(codes: Tensor, labels: Tensor, ridge: float = 1e-2, steps: int = 30) -> Hyperplane:
    """Fit labels (N,) of 0 and 1 by penalised logistic regression (Newton's method); codes (N, d)."""
    y = labels.double().flatten()
    if len(codes) != len(y) or y.min() == y.max():
        raise InputError("logistic regression needs one label per code, and both 0 and 1 among them")
    x = torch.cat([codes.double(), torch.ones(len(codes), 1, dtype=torch.float64)], 1)
    penalty = torch.full((x.shape[1],), float(ridge * codes.double().var(0).mean() * len(codes) / 4), dtype=torch.float64)
    penalty[-1] = 1e-9
    weights = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(steps):
        p = torch.sigmoid(x @ weights)
        gradient = x.T @ (p - y) + penalty * weights
        hessian = (x * (p * (1 - p)).clamp_min(1e-9)[:, None]).T @ x + penalty.diag()
        step = torch.linalg.solve(hessian, gradient)
        weights -= step
        if step.norm() < 1e-9 * weights.norm():
            break
    right = float(((x @ weights > 0) == (y > 0.5)).double().mean())
    length = weights[:-1].norm()
    return Hyperplane((weights[:-1] / length).float(), float(weights[-1] / length), right)


def project_out(primary: Tensor, *conditions: Tensor) -> Tensor:
    """Remove from a normal (d,) what it shares with others, so that moving along it keeps theirs (InterFaceGAN, section 3.2).

    Returns a unit vector; conditions need not be orthogonal to each other. Raises InputError where nothing is left.
    """
    if not conditions:
        return primary / primary.norm()
    others = torch.stack([condition.flatten() for condition in conditions]).double()
    vector = primary.flatten().double()
    coefficients = torch.linalg.lstsq(others.T, vector[:, None], driver="gelsd").solution
    left = vector - (others.T @ coefficients)[:, 0]
    if left.norm() < 1e-6 * vector.norm():
        raise InputError("the direction lies in the span of those it should leave alone: nothing of it is left")
    return (left / left.norm()).to(primary)


def slide(codes: Tensor, normal: Tensor, distances: Tensor) -> Tensor:
    """Place one code at signed distances (K,) from the plane through 0: (1, d) -> (K, d), as InterFaceGAN edits Z and W.

    A W+ code (1, num_ws, d) is moved by the distances instead, in all layers.
    """
    unit = normal.flatten()
    if codes.ndim == 2:
        return codes + (distances[:, None] - codes @ unit[:, None]) * unit
    return codes + distances[:, None, None] * unit
