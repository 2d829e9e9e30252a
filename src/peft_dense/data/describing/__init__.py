"""A first draft of a description, by looking at a folder."""
