"""Checkpoints on disk: what one consists of, how it becomes durable, which ones are kept; plain files, no tensors."""
