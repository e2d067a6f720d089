"""Esper: everything that talks to an esperd daemon from outside."""
