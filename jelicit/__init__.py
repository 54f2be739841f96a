"""jelicit finds what a language model believes, without labels.

Linear probes on hidden states (CCS, PCA, ensembles, easy-to-hard transfer) fitted by the thousand
in JAX, and the challenges that make them fail.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("jelicit")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+source"
