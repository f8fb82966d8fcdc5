"""The convolutional vision transformer, one concept per file."""
