"""Where and how precisely to compute: chosen once, reported, overridable."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from limn.errors import InputError

if TYPE_CHECKING:
    import torch


def choose(device: str = "auto") -> torch.device:
    """Return the device named, or for ``auto`` the first that is there of cuda, mps, cpu; from then on memory is kept on a CPU.

    Raises InputError with the reason when the device asked for cannot be used.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is not known: use auto, cpu, mps, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r} was asked for, but {why_no_cuda()}; use --device cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {device!r} was asked for, but this is not an Apple GPU with macOS 14 or later; use --device cpu")
    if chosen.type == "cpu":
        keep_memory()
    return chosen


def why_no_cuda() -> str:
    """Say in one clause why CUDA cannot be used here; empty where it can."""
    import torch

    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this PyTorch ({torch.__version__}) is a build without CUDA: install the CUDA build from pytorch.org"
    if not Path("/proc/driver/nvidia/version").exists() and platform.system() == "Linux":
        return "no NVIDIA driver is loaded on this machine"
    return f"PyTorch was built for CUDA {torch.version.cuda} and the driver offers no usable GPU: compare `nvidia-smi`"


@cache
def fast_dtype(device_type: str) -> torch.dtype:
    """Return the low precision that is native on a kind of device: float32 where there is none."""
    import torch

    if device_type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device_type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and _cpu_has_bf16():
        return torch.bfloat16
    return torch.float16 if device_type == "mps" else torch.float32


@cache
def keep_memory() -> None:
    """Make glibc keep freed memory instead of returning it: on a CPU, fresh pages cost more than the arithmetic on them.

    Without effect where the C library is another one.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 256 << 20)


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively; emulation is slower than float32."""
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))
