"""Look at a data set before it is trained on: read every file, count labels, name what is wrong."""
