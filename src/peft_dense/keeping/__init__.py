"""Saved folders: what lies in them, whether it is whole, and whether it fits."""
