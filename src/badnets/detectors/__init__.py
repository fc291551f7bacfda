"""Catalogue of detectors: is this net, this input or this training row bad? None of them can reach the secret."""
