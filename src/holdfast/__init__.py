"""Holdfast: an embedded, transactional storage engine for data that arrives in time order."""

__version__ = "0.1.0"
