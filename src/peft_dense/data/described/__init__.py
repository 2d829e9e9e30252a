"""Data sets as they lie on disk, read by a description in place of a converter."""
