"""Checks of a data set before training: read every file, count labels, name what is wrong."""
