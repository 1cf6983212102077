"""Official data: what is installed, whether it is what it should be, and getting it."""

from hiper.data.sets import DataHome, DataSet, FileSet, Finding, State
from hiper.data.transfer import Arrival, RemoteFile, Source, download

__all__ = [
    "Arrival",
    "DataHome",
    "DataSet",
    "FileSet",
    "Finding",
    "RemoteFile",
    "Source",
    "State",
    "download",
]
