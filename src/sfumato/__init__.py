"""Text-to-image diffusion as one small, whole system."""

__version__ = "0.1.0"
