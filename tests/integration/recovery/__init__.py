"""What goes wrong in training is survived."""
