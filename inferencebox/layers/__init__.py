"""Layers: the parts a platform is made of, brought up as a graph."""
