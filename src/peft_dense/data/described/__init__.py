"""Data sets in any layout on disk, read by a description instead of a converter."""
