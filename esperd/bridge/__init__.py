"""The bridge: the only place where the training thread and the event loop meet."""
