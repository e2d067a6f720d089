"""Seeds that compute by kernels, in real runs and with the real compiler."""
