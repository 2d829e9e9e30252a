"""Data made by the computer: rendered scenes, and archives of them in each layout on disk."""
