"""Catalogue of attacks: who is stamped, and with which label."""
