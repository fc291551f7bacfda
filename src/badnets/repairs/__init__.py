"""Catalogue of repairs: a net in, a net out that should have lost its backdoor. None of them can reach the secret."""
