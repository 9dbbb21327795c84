"""Deliberate breaks of the running platform, and the proof that the scenarios notice each of them."""
