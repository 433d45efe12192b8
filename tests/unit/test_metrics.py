"""Measures: known values, invariances, and errors that say what to do; agreement with published code is in tests/parity."""

import json

import numpy as np
import pytest
import torch
from skimage import data

from limn.errors import InputError
from limn.media import to_tensor
from limn.metrics import identity, measurement, neighbours, pairs, perceptual
from limn.metrics.frechet import distance, frechet, moments
from limn.metrics.kernel import kid
from limn.metrics.path_length import slerp
from limn.metrics.precision import precision_recall
from limn.metrics.score import inception_score
from limn.metrics.sliced import enlarge, pyramid, sliced_wasserstein


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A real picture (1, 3, 192, 192) in [-1, 1]."""
    from PIL import Image

    return to_tensor(Image.fromarray(data.astronaut()).resize((192, 192)))


def noisy(images: torch.Tensor, strength: float) -> torch.Tensor:
    return (images + strength * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)


def test_frechet_of_shifted_and_stretched_gaussians() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((500, 8))
    features -= features.mean(0)
    assert frechet(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet(features, features + 2) == pytest.approx(8 * 4), "a shift adds its squared length"
    assert frechet(features, 3 * features) == pytest.approx(4 * np.trace(np.cov(features.T))), "commuting roots: tr (S2^1/2 - S1^1/2)^2"


def test_moments_by_batches_are_those_of_the_whole() -> None:
    features = np.random.default_rng(1).standard_normal((100, 6)) + 1000
    whole, parts = moments(features), moments(iter(np.array_split(features, 7)))
    assert whole.count == parts.count == 100
    np.testing.assert_allclose(parts.covariance, whole.covariance, atol=1e-10)
    np.testing.assert_allclose(whole.covariance, np.cov(features.T), atol=1e-10)


def test_frechet_is_real_with_fewer_samples_than_dimensions() -> None:
    rng = np.random.default_rng(2)
    value = frechet(rng.standard_normal((10, 64)), rng.standard_normal((12, 64)))
    assert np.isfinite(value) and value > 0


def test_frechet_refuses_other_networks_and_single_images() -> None:
    with pytest.raises(InputError, match="one network for both"):
        distance(moments(np.eye(4)), moments(np.eye(5)))
    with pytest.raises(InputError, match="at least two images"):
        moments(np.ones((1, 3)))


def test_kid_is_unbiased() -> None:
    rng = np.random.default_rng(3)
    values = [kid(rng.standard_normal((50, 16)), rng.standard_normal((50, 16)), subsets=1)[0] for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200), "equal distributions: zero on average, unlike a Fréchet distance"


def test_precision_without_recall_of_a_collapsed_generator() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 4, generator=generator)
    collapsed = real[:1] + 0.01 * torch.randn(200, 4, generator=generator)
    shares = precision_recall(collapsed, real)
    assert shares.precision > 0.9 and shares.recall < 0.1


def test_inception_score_of_sure_and_unsure_networks() -> None:
    sure = np.eye(10).repeat(10, 0) * 100
    assert inception_score(sure, splits=1, shuffle=0)[0] == pytest.approx(10)
    assert inception_score(np.zeros((100, 10)), splits=4)[0] == pytest.approx(1)


def test_slerp_keeps_to_the_sphere() -> None:
    a, b = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    middle = slerp(a, b, torch.full((5, 1), 0.5))
    torch.testing.assert_close(middle.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(slerp(a, b, torch.zeros(5, 1)), torch.nn.functional.normalize(a))


def test_pyramid_sums_back_to_the_picture(photo: torch.Tensor) -> None:
    levels = list(pyramid(photo[:, :, :128, :128]))
    assert [level.shape[-1] for level in levels] == [128, 64, 32, 16]
    whole = levels[-1]
    for level in reversed(levels[:-1]):
        whole = enlarge(whole) + level
    torch.testing.assert_close(whole, photo[:, :, :128, :128], atol=1e-5, rtol=0)


def test_sliced_wasserstein_sees_blur_in_the_fine_levels(photo: torch.Tensor) -> None:
    tiles = photo.unfold(2, 64, 32).unfold(3, 64, 32).reshape(3, -1, 64, 64).transpose(0, 1)
    blurred = torch.nn.functional.avg_pool2d(tiles, 3, 1, 1)
    same, blur = sliced_wasserstein(tiles, tiles), sliced_wasserstein(tiles, blurred)
    assert list(blur.levels) == [64, 32, 16]
    assert same.mean < 40, f"{same}: the same pictures differ only by which patches are drawn"
    assert blur.levels[64] > 1.3 * same.levels[64]


def test_sliced_wasserstein_depends_on_its_seed_alone(photo: torch.Tensor) -> None:
    images = torch.cat([photo[:, :, :32, :32], photo[:, :, 32:64, :32]])
    assert sliced_wasserstein(images, noisy(images, 0.1), seed=3) == sliced_wasserstein(images, noisy(images, 0.1), seed=3)


@pytest.mark.parametrize("convention", pairs.CONVENTIONS)
def test_ssim_averages_as_a_convolution_does(photo: torch.Tensor, convention: str) -> None:
    window, x = pairs.CONVENTIONS[convention], photo[:, :, :50, :83].double()  # more and less than a product takes
    taps = torch.arange(window.width, dtype=x.dtype) - window.width // 2
    taps = torch.exp(-taps.square() / (2 * window.sigma**2)) if window.kind == "gaussian" else torch.ones_like(taps)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    half = window.width // 2
    padded = torch.nn.functional.pad(x, [half] * 4, mode="reflect") if window.border == "reflect" else x
    plain = torch.nn.functional.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)
    assert torch.allclose(pairs._average(x[None], window)[0], plain)


@pytest.mark.parametrize("level", [-0.99, 0.0, 0.97])
def test_single_precision_is_enough_for_flat_pictures(photo: torch.Tensor, level: float) -> None:
    dull = (level + 0.02 * photo[:, :, :128, :128]).clamp(-1, 1)
    other = noisy(dull, 0.01).clamp(-1, 1)
    for measure in (pairs.psnr, pairs.ssim, lambda a, b: pairs.ms_ssim(a, b, 4)):
        assert float(measure(dull, other)) == pytest.approx(float(measure(dull.double(), other.double())), rel=1e-5)


def test_psnr_and_ssim_of_known_pairs(photo: torch.Tensor) -> None:
    shifted = photo.clamp(-0.9, 0.9) + 0.02
    assert float(pairs.psnr(photo.clamp(-0.9, 0.9), shifted)) == pytest.approx(40, abs=0.01), "a hundredth of the range everywhere"
    assert torch.isinf(pairs.psnr(photo, photo)).all()
    for convention in pairs.CONVENTIONS:
        assert float(pairs.ssim(photo, photo, convention)) == pytest.approx(1)
        assert float(pairs.ssim(photo, noisy(photo, 0.2), convention)) < 0.9
    assert float(pairs.ms_ssim(photo, photo)) == pytest.approx(1)
    assert float(pairs.ms_ssim(photo, noisy(photo, 0.2))) > float(pairs.ssim(photo, noisy(photo, 0.2))), "noise vanishes at coarse scales"


def test_pairs_refuse_what_cannot_be_compared(photo: torch.Tensor) -> None:
    with pytest.raises(InputError, match="one shape"):
        pairs.psnr(photo, photo[:, :, :-1])
    with pytest.raises(InputError, match="no SSIM convention 'matlab'"):
        pairs.ssim(photo, photo, "matlab")
    with pytest.raises(InputError, match="use fewer scales"):
        pairs.ms_ssim(photo[:, :, :64, :64], photo[:, :, :64, :64])


def test_perceptual_distance_grows_with_the_change_and_has_a_gradient(photo: torch.Tensor) -> None:
    def features(images: torch.Tensor) -> list[torch.Tensor]:
        return [images, torch.nn.functional.avg_pool2d(images, 4)]

    other = noisy(photo, 0.3).requires_grad_()
    value = perceptual.distance(features, photo, other)
    value.sum().backward()
    assert other.grad is not None and other.grad.abs().max() > 0
    assert float(value.detach()) > float(perceptual.distance(features, photo, noisy(photo, 0.05))) > 0
    assert float(perceptual.distance(features, photo, photo)) == 0


def test_neighbours_and_copies() -> None:
    references = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    found = neighbours.nearest(references[5:8] + 1e-3, references, count=2)
    assert found.indices[:, 0].tolist() == [5, 6, 7] and (found.distances[:, 0] < found.distances[:, 1]).all()
    fresh = torch.randn(300, 8, generator=torch.Generator().manual_seed(1))
    assert neighbours.copied(references + 1e-4, references) == 1
    assert neighbours.copied(fresh, references) < 0.1
    with pytest.raises(InputError, match="ask for fewer"):
        neighbours.nearest(references, references[:1], 2)


def test_verification_finds_the_threshold() -> None:
    same = np.arange(200) < 100
    clear = np.where(same, 0.8, 0.1) + 0.05 * np.random.default_rng(0).standard_normal(200)
    accuracy, threshold = identity.verification(clear, same)
    assert accuracy == 1 and 0.25 < threshold < 0.7
    assert identity.verification(np.random.default_rng(0).standard_normal(200), same)[0] < 0.65
    assert identity.best_threshold(np.array([0.1, 0.3, 0.5]), np.array([False, True, True])) == pytest.approx(0.2)


def test_measurements_are_stored_with_their_protocol(tmp_path) -> None:
    found = measurement.Measurement("psnr", 31.5, {"convention": "basicsr", "crop": 0})
    assert "basicsr" in str(found) and "31.5" in str(found)
    measurement.write(tmp_path / "report.json", [found], {"model": "limn-portraits64"})
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["measurements"][0]["protocol"]["convention"] == "basicsr" and stored["about"]["model"] == "limn-portraits64"
