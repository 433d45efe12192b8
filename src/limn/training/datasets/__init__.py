"""The kinds of data that recipes open, a file each; every batch is a pure function of (seed, step)."""
