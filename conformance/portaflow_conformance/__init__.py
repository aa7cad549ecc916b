"""Checks that prove whether a backend keeps the laws of `portaflow.backend`."""
