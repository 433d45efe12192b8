"""How the cases of e4e call our encoder, latent discriminator and pool."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from adapters.e4e_edits import EDITS
from PIL import Image
from torch import Tensor

from limn.faces import ffhq
from limn.losses.adversarial import logistic
from limn.models.inversion import e4e
from limn.weights.recognise import adopt


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()) for name, array in arrays.items()}


@torch.no_grad()
def whole(case: Any) -> dict[str, np.ndarray]:
    state, inputs, spec = tensors(case.weights()), tensors(case.inputs), case.spec
    kind = spec["kwargs"].get("encoder_type", "Encoder4Editing")
    beside = {"latent_avg": inputs["latent_avg"]} if spec["kwargs"].get("start_from_latent_avg", True) else {}
    sides = {part: {n.removeprefix(part): t for n, t in state.items() if n.startswith(part)} for part in ("encoder.", "decoder.")}
    encoder: Any = adopt(sides["encoder."], "e4e" if kind == "Encoder4Editing" else "psp", "encoder", beside).model
    generator: Any = adopt(sides["decoder."], "stylegan2", "generator").model
    repeated = re.search(r"repeated (\d+)x\1", spec["call"])
    images = F.interpolate(inputs["image"], scale_factor=int(repeated[1]) if repeated else 1, mode="nearest")
    offsets = encoder.codes(images)
    if offsets.ndim == 2:
        offsets = offsets[:, None].expand(-1, generator.num_ws, -1)
    codes = offsets + encoder.latent_avg[: generator.num_ws]
    image = F.adaptive_avg_pool2d(generator.synthesis(codes), case.outputs["image"].shape[-1])
    found = {"codes": offsets.numpy(), "latent": codes.numpy(), "image": image.numpy()}
    for name, wanted in case.outputs.items():
        if stage := re.fullmatch(r"codes_stage(\d+)", name):
            encoder.stage = min(int(stage[1]), generator.num_ws - 1)
            found[name] = encoder.codes(images)[:, :, :: offsets.shape[-1] // wanted.shape[-1]].numpy()
    return found


def discriminator(case: Any) -> dict[str, np.ndarray]:
    network = adopt(tensors(case.weights()), "e4e", "discriminator").model
    inputs = tensors(case.inputs)
    real, fake = network(inputs["real"]), network(inputs["fake"])
    found = {
        "score": network(inputs["w"]),
        "d_loss": logistic(real, real=True).mean() + logistic(fake, real=False).mean(),
        "g_loss": logistic(fake, real=True).mean(),
        "r1": e4e.r1(network, inputs["real"]),
    }
    return {name: value.detach().numpy() for name, value in found.items()}


class Replay:
    """Gives out the case's stored draws in order."""

    def __init__(self, draws: np.ndarray) -> None:
        self.draws = iter(draws.tolist())

    def randint(self, a: int, b: int) -> int:
        return int(next(self.draws))

    def uniform(self, a: float, b: float) -> float:
        return float(next(self.draws))


def pool(case: Any) -> dict[str, np.ndarray]:
    codes, draws = e4e.LatentPool(case.spec["kwargs"]["pool_size"]), Replay(case.inputs["draws"])
    inputs = tensors(case.inputs)
    count = sum(name.startswith("w_") for name in inputs)
    return {f"out_{index}": codes.query(inputs[f"w_{index}"], draws).numpy() for index in range(count)}


def align(case: Any) -> dict[str, np.ndarray]:
    """The FFHQ alignment; the sizes of each crop are those of the stored one and, for the transform, of the call."""
    found: dict[str, np.ndarray] = {}
    for index in range(sum(name.startswith("landmarks") for name in case.inputs)):
        points, image = case.inputs[f"landmarks{index}"], Image.fromarray(case.inputs[f"image{index}"])
        sizes = re.search(rf"\b{index}: output_size=(\d+), transform_size=(\d+)", case.spec["call"])
        output, transform = (int(sizes[1]), int(sizes[2])) if sizes else (len(case.outputs[f"aligned{index}"]),) * 2
        square = ffhq.square(points)
        found |= {f"quad{index}": square.quad(), f"size{index}": np.asarray(square.side())}
        found[f"aligned{index}"] = np.asarray(ffhq.published_crop(image, points, output, transform))
    return found


MODULES = {
    "models.psp.pSp": whole,
    "models.discriminator.LatentCodesDiscriminator": discriminator,
    "models.latent_codes_pool.LatentCodesPool": pool,
    "utils.alignment_utils (the FFHQ alignment; e4e, pSp and PTI use the same)": align,
    **EDITS,
    **EDITS,
}
