"""Networks that make faces from noise."""
