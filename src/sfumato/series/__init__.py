"""Several pictures that belong together: variations, frames from prompt to prompt, grids over fields."""
