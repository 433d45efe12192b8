"""Measures of images, pairs and sets, each by a convention that is named with the number.

Between sets: `frechet`, `kernel` (KID), `precision` and recall, `sliced` Wasserstein, `score` (IS), `path_length` (PPL), `neighbours`.
Between pairs: `pairs` (PSNR, SSIM, MS-SSIM), `perceptual`, `identity`. Feature networks are passed in: limn-identity of the box, or the
published Inception and LPIPS of `models/perception`.
"""
