"""Data sets on disk: people's own folders, and archives read as they are."""
