"""The spaces Z, W, W+ and S: files, inversion, directions, mixing. Methods with no network of their own."""
