"""Hypernetworks as prompt tags (see README.md)."""
