"""How the cases of pSp call our encoder, generator and identity loss."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limn.models.inversion import psp
from limn.models.perception.lpips import Config as LpipsConfig
from limn.models.perception.lpips import Lpips
from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


def enlarged(case: Any, image: Tensor) -> Tensor:
    """The case's call says how many times every pixel of the stored input is repeated."""
    found = re.search(r"repeated (\d+)x\1", case.spec["call"])
    times = int(found[1]) if found else 1
    return image.repeat_interleave(times, 2).repeat_interleave(times, 3)


def parts(case: Any) -> tuple[Any, Any]:
    """Load encoder and decoder strictly out of the published state dict; `latent_avg` lies beside it."""
    state, average = tensors(case.weights()), tensors(case.inputs).get("latent_avg")
    given = average is not None and case.spec["kwargs"].get("start_from_latent_avg", True)
    beside = {"latent_avg": average} if given else {}

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

    encoder = adopt(under("encoder."), "psp", "encoder", beside)
    return encoder.model, adopt(under("decoder."), "stylegan2", "generator").model


def output(image: Tensor, like: np.ndarray) -> np.ndarray:
    """Where the case was called with `resize`, images are pooled (or repeated) to 256 pixels."""
    return F.adaptive_avg_pool2d(image, like.shape[-1]).numpy()


@torch.no_grad()
def whole(case: Any) -> dict[str, np.ndarray]:
    encoder, generator = parts(case)
    inputs = tensors(case.inputs)
    offsets = encoder.codes(enlarged(case, inputs["image"]))
    average = encoder.latent_avg[: generator.num_ws]
    codes = offsets[:, None] + average[:1] if offsets.ndim == 2 else offsets + average
    codes = codes.expand(-1, generator.num_ws, -1)
    if case.spec["kwargs"].get("input_code") or "input_code=True" in case.spec["call"]:
        codes = generator.mapping(codes.flatten(0, 1))[:, 0].unflatten(0, codes.shape[:2])
    found = {"codes": offsets.numpy(), "latent": codes.numpy()}
    layers = [int(x) for x in numbers[1].split(",")] if (numbers := re.search(r"latent_mask=\[([\d, ]+)\]", case.spec["call"])) else []
    alpha = float(number[1]) if (number := re.search(r"alpha=([\d.]+\d)", case.spec["call"])) else 1.0
    images = {
        "image": codes,
        "image_mixed": psp.mixed(codes, layers, inputs.get("inject"), alpha),
        "image_zeroed": psp.mixed(codes, layers),
    }
    found |= {name: output(generator.synthesis(images[name]), case.outputs[name]) for name in images if name in case.outputs}
    return {name: found[name] for name in case.outputs if name in found}


@torch.no_grad()
def id_loss(case: Any) -> dict[str, np.ndarray]:
    network = adopt(tensors(case.weights()), "arcface").model
    view = psp.ArcFaceView(network, side=256)
    x, y, y_hat = (enlarged(case, tensors(case.inputs)[name]) for name in ("x", "y", "y_hat"))
    features, target, source = view.embed(y_hat), view.embed(y), view.embed(x)
    return {
        "features": features.numpy(),
        "loss": psp.identity_distance(view, y_hat, y).mean().numpy(),
        "dot_target": (features * target).sum(1).numpy(),
        "dot_input": (features * source).sum(1).numpy(),
        "dot_views": (target * source).sum(1).numpy(),
    }


@torch.no_grad()
def lpips(case: Any) -> dict[str, np.ndarray]:
    """pSp's copy names the buffers and weights in its own way, and divides the sum over the batch by its size."""
    names = {"net.mean": "shift", "net.std": "scale"}
    state = {}
    for name, tensor in tensors(case.weights()).items():
        ours = re.sub(r"lin\.(\d+)\.1\.weight", r"linear.layers.\1", re.sub(r"net\.layers\.", "trunk.", name))
        state[names.get(name, ours)] = tensor
    network = Lpips(LpipsConfig(case.spec["kwargs"]["net_type"])).eval()
    network.load_state_dict(state, strict=True)
    x, y = (tensors(case.inputs)[name] for name in ("x", "y"))
    features = [F.normalize(f, eps=1e-10) for f in network.features(x)]
    found = {"distance": network(x, y).mean(), "features_first": features[0][:, ::8, ::4, ::4], "features_last": features[-1]}
    return {name: value.numpy() for name, value in found.items()}


MODULES = {"models.psp.pSp": whole, "criteria.id_loss.IDLoss": id_loss, "criteria.lpips.lpips.LPIPS": lpips}
