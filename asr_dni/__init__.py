"""Keyword spotters that keep working when their arithmetic is noisy."""

__version__ = "0.1.0"
