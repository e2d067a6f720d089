"""The control plane: gRPC servicers that turn signed requests into commands for the trainer."""
