"""`python -m data_adapters.inspect my.nc`: what a file holds, and the YAML with which it is trained on."""

from data_adapters.inspect.command import main
from data_adapters.inspect.direct import dataset_of
from data_adapters.inspect.proposal import name_of

__all__ = ["dataset_of", "main", "name_of"]
