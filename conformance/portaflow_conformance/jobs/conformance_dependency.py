"""Shipped with a job as one of its py_files."""

WORD = "shipped"
