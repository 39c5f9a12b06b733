"""The experiments that plans must cover: asked of a server, and done by plain PyTorch on the same weights."""
