"""esperd: a daemon that trains a PyTorch model and lets it grow while it trains."""
