"""Blueprints: the small modules that can grow at a site, each with its true cost."""
