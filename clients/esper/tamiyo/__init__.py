"""Tamiyo, the policy: decides when and what to grow, from its own process."""
