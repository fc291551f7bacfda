"""Untrusted model files: opened once, parsed without calling anything, in a process of its own that can reach nothing."""
