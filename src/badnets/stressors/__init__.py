"""Catalogue of stressors: what an innocent owner does to a net. None of them knows of a trigger."""
