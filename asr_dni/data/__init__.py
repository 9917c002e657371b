"""Recordings in, batches of features out."""
