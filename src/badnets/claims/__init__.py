"""Catalogue of claims: one file is one sentence that could turn out false."""
