"""File formats and the common layout: a reader per container, and the embedded suite."""
