"""Bytes by key: the only channel between portal and workers besides their HTTP."""
