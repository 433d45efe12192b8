"""The spaces Z, W, W+ and S: files, inversion, directions, mixing. Methods with no network of their own.

`spaces` converts and mixes; `files` keeps latents that name their model; `projector` inverts and tunes; `directions` moves codes and
reads published direction files; `supervised`, `factor` and `discover` find directions, and `appearance` measures colours for them.
"""
