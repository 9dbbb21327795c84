"""Platforms on a cluster that somebody else made and others use too."""
