"""Real `esperd serve` processes, talked to over their sockets."""
