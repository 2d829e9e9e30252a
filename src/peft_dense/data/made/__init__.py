"""Rendered scenes, and archives of them in each layout on disk."""
