"""Catalogue of analyses of units: which react to a trigger, which carry the backdoor, what they see."""
