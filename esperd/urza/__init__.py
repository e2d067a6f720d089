"""Urza: the library of kernels. It takes uploads, keeps every byte under its digest, and tells what may be trusted."""
