"""The version of this package; of a source tree that is not installed, "0+source"."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("jelicit")
except PackageNotFoundError:
    __version__ = "0+source"
