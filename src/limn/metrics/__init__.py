"""Measures of images, pairs and sets, each by a convention that is named with the number.

Between sets: `frechet`, `kernel` (KID), `precision` and recall, `sliced` Wasserstein, `score` (IS), `path_length` (PPL), `neighbours`.
Between pairs: `pairs` (PSNR, SSIM, MS-SSIM), `perceptual`, `identity`. Feature networks are passed in: limn-identity of the box, or the
published Inception and LPIPS of `models/perception`.
For `limn evaluate`: `protocol` is the table of all measures, `networks` finds what they are taken with, `pictures` reads folders and zips,
`sets`, `matched` and `paths` take the measures of each kind with their protocol, `landmarks` those of faces found.
"""
