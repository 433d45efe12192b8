"""How good: distances between sets of images, and between two images."""
