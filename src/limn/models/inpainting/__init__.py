"""Filling holes in pictures: networks that see which pixels are missing and paint them."""
