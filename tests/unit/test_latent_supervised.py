"""Directions from labels: they find what was planted, and leave alone what they should."""

import pytest
import torch

from limn.errors import InputError
from limn.latent import supervised as s


def planted(count=400, width=12, noise=0.3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    codes = torch.randn(count, width, generator=rng)
    normal = torch.randn(width, generator=rng)
    normal /= normal.norm()
    return codes, normal, codes @ normal + noise * torch.randn(count, generator=rng)


def test_every_method_finds_the_planted_normal():
    codes, normal, scores = planted()
    labels = (scores > 0).float()
    for found in (s.separate(codes, scores, 0.2), s.regress(codes, scores), s.logistic(codes, labels)):
        assert found.normal @ normal > 0.95, "positive means a high score"
        assert abs(float(found.normal.norm()) - 1) < 1e-5
        assert found.accuracy > 0.8


def test_the_support_vector_machine_is_optimal():
    codes, _, scores = planted(60, 4, 1.0)
    y = (scores > 0).double().numpy() * 2 - 1
    x = codes.double().numpy()
    weights, offset = s.svm(x, y, 1.0, 1e-6)

    def cost(w, b):
        return 0.5 * w @ w + (1 - y * (x @ w + b)).clip(0).sum()

    best = cost(weights, offset)
    rng = torch.Generator().manual_seed(1)
    for _ in range(200):
        change = (torch.randn(5, generator=rng, dtype=torch.float64) * 1e-2).numpy()
        assert cost(weights + change[:4], offset + change[4]) >= best - 1e-4


def test_projection_removes_what_is_shared():
    codes, normal, _ = planted()
    other, third = codes[0], codes[1]
    left = s.project_out(normal, other, third)
    assert abs(float(left @ other)) < 1e-4 and abs(float(left @ third)) < 1e-4 and left @ normal > 0
    assert torch.allclose(s.project_out(2 * normal), normal)
    assert torch.allclose(s.project_out(normal, other, other), s.project_out(normal, other), atol=1e-5), "doubled conditions do no harm"
    with pytest.raises(InputError, match="nothing"):
        s.project_out(normal, normal)


def test_sliding_places_codes_at_distances():
    codes, normal, _ = planted()
    placed = s.slide(codes[:1], normal, torch.tensor([-3.0, 0.0, 3.0]))
    assert torch.allclose(placed @ normal, torch.tensor([-3.0, 0.0, 3.0]), atol=1e-5)


def test_bad_input_is_named():
    codes, _, scores = planted()
    with pytest.raises(InputError, match="share"):
        s.separate(codes, scores, 2.0)
    with pytest.raises(InputError, match="399 scores"):
        s.separate(codes, scores[1:], 0.2)
    with pytest.raises(InputError, match="none at the ends"):
        s.separate(codes, scores, 0.001)
    with pytest.raises(InputError, match="all the same"):
        s.regress(codes, torch.ones(400))
    with pytest.raises(InputError, match="both 0 and 1"):
        s.logistic(codes, torch.ones(400))
