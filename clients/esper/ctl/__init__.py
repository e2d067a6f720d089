"""esperctl: the operator's command line."""
