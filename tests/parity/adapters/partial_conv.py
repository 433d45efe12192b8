"""Partial convolution: NVIDIA's layer, the usual port's U-Net, and its losses in VGG-16."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limn.models.inpainting import partial_conv
from limn.models.inpainting.partial_conv import PartialConv, UNet
from limn.models.perception import vgg
from limn.weights import adopt

Outputs = dict[str, Tensor]
OURS = {"prc": "perceptual", "tv": "smooth"}  # the losses by their published names, where ours differ
INDEX = {f"enc_{stage}.{layer}": vgg.names("vgg16")[start + layer] for stage, start in ((1, 0), (2, 5), (3, 10)) for layer in (0, 2, 4)}


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array).copy()).float() for name, array in arrays.items()}


def single(value: Any) -> int:
    return int(value if isinstance(value, int) else value[0])


@torch.inference_mode()
def layer(case: Any) -> Outputs:
    """A mask of many channels has one for each source of features."""
    given, kwargs, state = tensors(case.inputs), case.spec["kwargs"], tensors(case.weights())
    port = "input_conv.weight" in state  # divided by the number of known values, not by their share; a mask for every channel
    if port:
        state = {name.removeprefix("input_conv."): tensor for name, tensor in state.items() if name.startswith("input_conv.")}
        state["weight"] = state["weight"] / state["weight"][0].numel()
    several = port or bool(kwargs.get("multi_channel"))
    inputs, kernel = kwargs["in_channels"], single(kwargs["kernel_size"])
    shape = (single(kwargs.get(name, default)) for name, default in (("stride", 1), ("padding", 0)))
    conv = PartialConv(
        (1,) * inputs if several else (inputs,), kwargs["out_channels"], kernel, *shape, "bias" in state, single(kwargs.get("dilation", 1))
    )
    conv.load_state_dict(state)
    mask = given.get("mask", torch.ones_like(given["x"][:, :1]))
    y, found = conv(given["x"], mask)
    width = case.outputs["mask"].shape[1] if "mask" in case.outputs else 1
    return {"y": y, "mask": found.expand(-1, width, -1, -1)}


@torch.inference_mode()
def unet(case: Any) -> Outputs:
    given, kwargs = tensors(case.inputs), case.spec["kwargs"]
    loaded = adopt(tensors(case.weights()), "partial-conv", "unet")
    network = UNet(replace(loaded.config, enlarge=kwargs.get("upsampling_mode", "nearest"))).eval()
    network.load_state_dict(loaded.model.state_dict())
    output, mask = network(given["x"], given["mask"][:, :1])
    return {"output": output, "mask": mask}


@torch.inference_mode()
def losses(case: Any) -> Outputs:
    given, weights = tensors(case.inputs), case.spec["kwargs"]["weights"]
    network = vgg.Vgg(vgg.Config("vgg16", "signed", ("pool1", "pool2", "pool3")))
    for name, tensor in tensors(case.weights()).items():
        stage, _, parameter = name.rpartition(".")
        getattr(network[vgg.names("vgg16").index(INDEX[stage])], parameter).data.copy_(tensor)
    found = partial_conv.terms(network.features, given["mask"], given["output"], given["x"])
    ours = {name: found[OURS.get(name, name)] for name in weights}
    return {**ours, "total": torch.stack([weights[name] * ours[name] for name in weights]).sum()}


MODULES = {
    "models.partialconv2d.PartialConv2d": layer,
    "net.PartialConv": layer,
    "net.PConvUNet": unet,
    "loss.InpaintingLoss with net.VGG16FeatureExtractor": losses,
}
