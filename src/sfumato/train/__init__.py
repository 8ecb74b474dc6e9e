"""Training: one loop over objectives, exactly resumable."""
