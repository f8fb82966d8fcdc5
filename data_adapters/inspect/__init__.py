"""`python -m data_adapters.inspect my.nc`: what a file holds, and the YAML with which it is trained on."""

from data_adapters.inspect.command import main

__all__ = ["main"]
