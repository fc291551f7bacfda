"""Catalogue of data sets: one file is one data set; each is identified by the SHA-256 of its pixels and labels."""
