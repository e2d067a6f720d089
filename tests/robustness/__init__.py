"""Tests that kill, stop and starve real daemons, and judge what is left by validators over the recorded history."""
