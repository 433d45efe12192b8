"""Perceptual path length of a generator, in LPIPS (the published PPL) or in limn-identity's space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from limn.metrics.measurement import Measurement
from limn.metrics.networks import Networks, limn_vectors, lpips_vectors
from limn.metrics.path_length import LARGEST, Path, path_distances, path_length
from limn.metrics.protocol import MEASURES
from limn.models.records import seeded

BATCH = 16  # paths at a time


@torch.inference_mode()
def measured(name: str, generator: Any, count: int, networks: Networks, seed: int, terms: Mapping[str, str | int | float]) -> Measurement:
    """Take PPL over `count` paths in W, sampled at their ends: NVIDIA's ppl2_wend, with the constant noise.

    `generator` satisfies models.records.Generator and has a `config` with z_dim; it has no classes.
    """
    net = networks.net("vgg") if name == "ppl" else ""
    assert networks.limn is not None or net, "a feature network is at hand"
    embed = lpips_vectors(networks.lpips[net]) if name == "ppl" else limn_vectors(networks.limn.model)  # type: ignore[union-attr]
    z = torch.randn(2, count, generator.config.z_dim, generator=seeded(seed)).to(networks.device)
    path = Path()
    distances = [
        path_distances(generator.mapping, generator.synthesis, embed, z=(a, b), t=a.new_zeros(len(a)), path=path).cpu()
        for a, b in zip(z[0].split(BATCH), z[1].split(BATCH), strict=True)
    ]
    said = networks.terms(f"lpips {net}" if net else "limn-identity")
    protocol = {**terms, **said, "paths": count, "space": path.space, "epsilon": path.epsilon, "sampling": "end", "seed": seed}
    protocol |= {"resize": f"averaged down to at most {LARGEST}", "convention": "nvlabs ppl2_wend, constant noise" if net else "limn"}
    return Measurement(MEASURES[name].title, path_length(torch.cat(distances).numpy()), protocol)
