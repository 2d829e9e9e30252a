"""Data sets on disk: your own folders, and archives read as they are."""
