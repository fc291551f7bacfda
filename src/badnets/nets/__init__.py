"""Catalogue of architectures: one file is one net."""
