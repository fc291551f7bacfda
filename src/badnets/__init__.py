"""A laboratory for neural-network backdoors: plant, measure, find, remove."""

__version__ = "0.1.0"
