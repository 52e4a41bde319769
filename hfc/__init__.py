"""Hierarchical fashion classification: features extracted once, hierarchical heads trained in seconds."""

__version__ = "0.1.0"
