"""Foundations: configuration, errors, random streams, files, store, statistics. Imports nothing of the package above it."""
