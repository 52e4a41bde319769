"""The header of a cache: texts in attributes, under a checksum of their own."""

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from hfc.provenance import digest
from hfc.store.files import get_attribute, put_attribute

SCHEMA = 1
HEADER = ("feature_key", "key_fields", "config", "provenance", "features_sha256", "table_sha256")
DTYPES = ("<f2", "<f4")


def read_header(file: h5py.File) -> dict[str, str]:
    """Read the texts of a header; whether they match their checksum is for who has the features too."""
    return {name: get_attribute(file, name) for name in HEADER}


def put_header(file: h5py.File, header: Mapping[str, str]) -> None:
    """Write a header with its checksum into a cache whose features are there."""
    for name, text in header.items():
        put_attribute(file, name, text)
    features = file["features"]
    put_attribute(file, "header_sha256", header_digest(header, features.shape, features.dtype))


def change_header(file: h5py.File, **changes: str) -> None:
    """Write some texts of a header anew, and its checksum."""
    put_header(file, read_header(file) | changes)


def header_digest(header: Mapping[str, str], shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """SHA-256 over the header, and over shape and byte order, without which the same bytes are other numbers."""
    return digest([dict(header), list(shape), dtype.str if dtype.str in DTYPES else "another type"])
