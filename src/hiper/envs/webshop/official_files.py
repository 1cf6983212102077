"""The official files: where to download them, and their checksums."""

from __future__ import annotations

import os
from pathlib import Path

from hiper.envs.downloads import DataHome, FileSet, RemoteFile, Source
from hiper.files import named_path

DATA_VARIABLE = "WEBSHOP_DATA"
"""The environment variable that names the folder of official files."""
DEFAULT_FOLDER = "~/.cache/webshop"


def data_path() -> Path:
    """Return the default folder of official files, which may not exist."""
    return named_path(os.environ.get(DATA_VARIABLE) or DEFAULT_FOLDER)


def _file(name: str, drive_id: str, size: int, sha256: str) -> RemoteFile:
    """Describe a file on the Google Drive of WebShop's authors, with a copy on Hugging Face."""
    drive = f"https://drive.usercontent.google.com/download?id={drive_id}&export=download&confirm=t"
    revision = "ce990fff5aee388db2706f07820c578ab68e0453"
    copy = f"https://huggingface.co/datasets/YWZBrandon/webshop-data/resolve/{revision}/{name}"
    sources = (Source("the authors' Google Drive", drive), Source("a copy on Hugging Face", copy))
    return RemoteFile(name, sources, size, sha256)


SMALL = FileSet(
    "small",
    "the 1,000 products on which results are usually reported, 5 MB",
    (
        _file(
            "items_shuffle_1000.json",
            "1EgHdxQ_YxqIQlvvq5iKlCrkEKR6-j0Ib",
            4_467_013,
            "30a4765c3a327af72d9a9a95a6b2486d516f0fa1d3ecd83681901ce82a21b269",
        ),
        _file(
            "items_ins_v2_1000.json",
            "1IduG0xl544V_A_jv3tHXC0kyFi7PnyBu",
            147_099,
            "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f",
        ),
    ),
)
FULL = FileSet(
    "full",
    "all 1.18 million products, 5.7 GB",
    (
        _file(
            "items_shuffle.json",
            "1A2whVgOO0euk5O13n2iYDM0bQRkkRduB",
            5_479_720_229,
            "2ef591d65df3af89e972ab72468eb82cbf124d876552d9f3678667edd620a6c8",
        ),
        _file(
            "items_ins_v2.json",
            "1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi",
            186_295_270,
            "1d36af476bdb8f82a5da62bd8acdabe54cd8de2fa84010d37da5c4890feb447e",
        ),
    ),
)
HUMAN = FileSet(
    "human",
    "instructions written by people, for both catalogues, 5 MB",
    (
        _file(
            "items_human_ins.json",
            "14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O",
            5_137_548,
            "cf78667548a71786e1d9049c24b802e48e1084ad4bb021cae56ce1f6d96954a3",
        ),
    ),
)

DATA = DataHome(
    folder=data_path,
    variable=DATA_VARIABLE,
    sets=(SMALL, FULL, HUMAN),
    by_hand=(
        "Google Drive refuses files that were asked for too often, mostly for a day, and is then kinder to browsers: "
        "open https://drive.google.com/uc?id=ID with the ID of the address above, lay the file into the folder, and "
        "give the same command again, which checks it; anyone's copy will do. Meanwhile, data=generated (env.data in a "
        "recipe) needs no download"
    ),
    checksums=(
        "WebShop's authors publish no checksums. These are the ones on which independent users of the files and "
        "mirrors of them agree"
    ),
)
