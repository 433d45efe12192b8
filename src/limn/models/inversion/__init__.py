"""Networks that find the latent of a photograph."""
