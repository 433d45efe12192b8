"""FID and the measures around it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from limn.metrics.frechet import frechet
from limn.metrics.kernel import kid, squared_mmd
from limn.metrics.path_length import Path, path_distances, path_length, slerp
from limn.metrics.precision import precision_recall
from limn.metrics.score import inception_score
from limn.models.perception.inception import clean_bicubic, pytorch_fid, tensorflow, tf1_bilinear
from limn.weights import adopt


def metrics(case: Any) -> dict[str, np.ndarray]:
    """Compute every measure that the case names, from its feature arrays."""
    kwargs = case.spec["kwargs"]
    generated, real = case.inputs["generated"], case.inputs["real"]
    unbiased = frechet(generated, real)
    k = kwargs["neighbourhood k"]
    shares = precision_recall(torch.from_numpy(generated), torch.from_numpy(real), k)
    kernel = kid(generated, real, kwargs["kid_subsets"], kwargs["kid_subset_size"], kwargs["rng_seed"])
    score = inception_score(case.inputs["logits"], kwargs["is_splits"])
    shuffled = inception_score(case.inputs["logits"], kwargs["is_splits"], kwargs["rng_seed"])
    distances = case.inputs["ppl_distances"]
    ours = {
        "fid_pytorch_fid": unbiased,
        "fid_clean": unbiased,
        "fid_torch_fidelity": unbiased,
        "fid_nvlabs": frechet(generated, real, "nvlabs"),
        "kid_clean_all": squared_mmd(generated, real),
        "kid_nvlabs_all": squared_mmd(generated, real),
        "kid_torch_fidelity_mean": kernel[0],
        "kid_torch_fidelity_std": kernel[1],
        "precision": shares.precision,
        "precision_nvlabs": shares.precision,
        "recall": shares.recall,
        "recall_nvlabs": shares.recall,
        "f_score": shares.f_score,
        "is_mean": score[0],
        "is_std": score[1],
        "is_shuffled_mean": shuffled[0],
        "is_shuffled_std": shuffled[1],
        "ppl": path_length(distances),
        "ppl_lo": np.percentile(distances, 1, method="lower"),
        "ppl_hi": np.percentile(distances, 99, method="higher"),
    }
    return {name: np.float32(ours[name]) for name in case.outputs}


def ppl(case: Any) -> dict[str, np.ndarray]:
    """Walk the paths of a toy generator made of the case's matrices."""
    kwargs = case.spec["kwargs"]
    z, t, a, b, c = (torch.from_numpy(case.inputs[name]) for name in ("z", "t", "A", "B", "C"))
    side = kwargs["resolution"]
    path = Path(kwargs["space"], kwargs["epsilon"], kwargs["crop"])
    z0, z1 = z.chunk(2)
    distances = path_distances(
        lambda z: torch.tanh(z @ a),
        lambda w: torch.tanh(w @ b).view(-1, 3, side, side),
        lambda pixels: pixels.flatten(1) @ c / 255,
        z=(z0, z1),
        t=t if kwargs["sampling"] == "full" else torch.zeros_like(t),
        path=path,
    )
    return {"distance": distances.numpy(), "slerp": slerp(z0, z1, t[:, None]).numpy()}


@torch.inference_mode()
def inception(case: Any) -> dict[str, np.ndarray]:
    """pytorch-fid's chain, features of every block, and the logits."""
    network = _network(case)
    first, second, third, pool3 = network(pytorch_fid(torch.from_numpy(case.inputs["image"]).float() * 255))
    ours = {
        "pool1": first[:, ::8, ::8, ::8],
        "pool2": second[:, ::16, ::4, ::4],
        "mixed6e": third[:, ::32, ::2, ::2],
        "pool3": pool3.flatten(1),
        "logits": network.logits(pool3.flatten(1), bias=True),
    }
    return {name: ours[name].numpy() for name in case.outputs}


@torch.inference_mode()
def inception_tf(case: Any) -> dict[str, np.ndarray]:
    """The chain of the original graph, the means of every block, and both kinds of logits."""
    network = _network(case)
    maps = network(tensorflow(torch.from_numpy(case.inputs["image"]).float()))
    ours = {f"f{each.shape[1]}": each.mean((2, 3)) for each in maps}
    ours |= {"logits": network.logits(ours["f2048"], bias=True), "logits_unbiased": network.logits(ours["f2048"])}
    return {name: ours[name].numpy() for name in case.outputs}


def _network(case: Any) -> Any:
    return adopt({name: torch.from_numpy(value) for name, value in case.weights().items()}, "inception").model.eval()


def resize(case: Any) -> dict[str, np.ndarray]:
    """Every resizer that the case names, on its picture."""
    image, (height, width) = case.inputs["image"], (case.spec["kwargs"]["height"], case.spec["kwargs"]["width"])
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    plain = F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)
    ours = {
        "clean": _hwc(clean_bicubic(pixels, height, width)),
        "legacy_pytorch": _hwc(plain.clamp(0, 255)),
        "tf1_bilinear": _hwc(tf1_bilinear(pixels, height, width)),
        "tf1_bilinear_align_corners": _hwc(tf1_bilinear(pixels, height, width, align_corners=True)),
        "opencv_bilinear": cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR),
        "pil_bilinear_quantized": np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)),
    }
    return {name: ours[name] for name in case.outputs}


def _hwc(image: torch.Tensor) -> np.ndarray:
    return image[0].permute(1, 2, 0).numpy()


MODULES = {
    "pytorch_fid.inception.InceptionV3 (use_fid_inception)": inception,
    "torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3": inception_tf,
    "cleanfid.resize.make_resizer, torch_fidelity.interpolate_compat_tensorflow": resize,
    "calculate_frechet_distance; frechet_distance, kernel_distance; metric_fid/kid/prc/isc; metrics.*": metrics,
    "metrics.perceptual_path_length.PPLSampler, slerp": ppl,
}
