"""The growth experiments H1 to H5: what growing a live model buys, held against arms that could beat it."""
