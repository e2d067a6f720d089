"""Rounds: client processes at work while the daemon is killed and stopped and their connections are disturbed."""
