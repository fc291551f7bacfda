"""Catalogue of triggers: pixels to pixels."""
