"""The networks: UNet, autoencoders and text encoders, with the parameter names of published checkpoints."""
