"""Descriptions: clusters, functions, and the catalogue of instance types."""
