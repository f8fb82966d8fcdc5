"""An evaluation as one page: a file that opens from disk, without a server and without the network."""

from morph.report.page import report

__all__ = ["report"]
