"""One file per published system, in rooms named after the survey's chapters; `SYSTEMS` is the list of them."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from limn.errors import InputError

SYSTEMS: dict[str, str] = {
    "stylegan2": "limn.models.generation.stylegan2",
    "psp": "limn.models.inversion.psp",
    "e4e": "limn.models.inversion.e4e",
    "deepfill-v2": "limn.models.inpainting.deepfill_v2",
    "partial-conv": "limn.models.inpainting.partial_conv",
    "pix2pix": "limn.models.translation.pix2pix",
    "cyclegan": "limn.models.translation.cyclegan",
    "spade": "limn.models.translation.spade",
    "retinaface": "limn.models.perception.retinaface",
    "yunet": "limn.models.perception.yunet",
    "limn-detector": "limn.models.perception.limn_detector",
    "limn-mesh": "limn.models.perception.limn_mesh",
    "limn-parser": "limn.models.perception.limn_parser",
    "bisenet": "limn.models.perception.bisenet",
    "parsenet": "limn.models.perception.parsenet",
    "arcface": "limn.models.perception.arcface",
    "limn-identity": "limn.models.perception.limn_identity",
    "lpips": "limn.models.perception.lpips",
    "vgg": "limn.models.perception.vgg",  # behind lpips, which takes VGG-16 as a trunk of its own
    "inception": "limn.models.perception.inception",
    "gpen": "limn.models.restoration.gpen",
    "gfpgan": "limn.models.restoration.gfpgan",
    "real-esrgan": "limn.models.restoration.real_esrgan",
    "esrgan": "limn.models.restoration.esrgan",
    "simswap": "limn.models.swapping.simswap",
    "raft": "limn.models.perception.raft",
    "fomm": "limn.models.animation.fomm",
    "hopenet": "limn.models.perception.hopenet",
    "face-vid2vid": "limn.models.animation.face_vid2vid",
}


def system(name: str) -> ModuleType:
    """Import the file of a system; InputError suggests the nearest name for one that is not known."""
    if name not in SYSTEMS:
        near = get_close_matches(name, SYSTEMS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(SYSTEMS)}"
        raise InputError(f"there is no system {name!r}: {hint}")
    return import_module(SYSTEMS[name])
