"""The embedded suite."""
