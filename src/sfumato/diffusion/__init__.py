"""The mathematics of diffusion: levels, predictions, samplers, guidance, noise. It knows no networks."""
