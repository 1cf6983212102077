"""Official data: inspect what is installed, check it and download it."""

from hiper.envs.downloads.sets import DataHome, DataSet, FileSet, Finding, State
from hiper.envs.downloads.transfer import Arrival, RemoteFile, Source, download

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
