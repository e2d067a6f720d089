"""Oona, the bus: the journal that remembers a run and the feeds that carry it to subscribers."""
