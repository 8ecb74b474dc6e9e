"""What models are trained on: fetched, rendered, described in words, and split by concept."""
