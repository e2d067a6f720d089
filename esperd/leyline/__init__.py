"""Leyline, the contract: commands, views, errors, keys and signatures that every part agrees on."""
