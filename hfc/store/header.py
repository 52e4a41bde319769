"""The header of a cache: texts in attributes, under a checksum of their own. Three of them are JSON."""

from collections.abc import Mapping
from typing import Any, TypedDict

import h5py
import numpy as np

from hfc.provenance import digest
from hfc.store.files import get_attribute, put_attribute

SCHEMA = 2
READABLE = (1, 2)
ONCE_IN_KEY = ("schema", "rows", "regions")  # key fields of schema 1 that are no settings
HEADER = ("feature_key", "key_fields", "config", "provenance", "features_sha256", "table_sha256")
DTYPES = ("<f2", "<f4")


class KeyFields(TypedDict):
    """Exactly what changes the features of given pixels: their digest is the feature key."""

    pixels: int
    """Version of what becomes of the pixels."""
    numerics: int
    """Version of how a network is computed."""
    backbone: str
    weights: str
    """Digest of the weights."""
    image_size: int
    resize: str
    roi_margin: float
    mean: list[float]
    std: list[float]
    pool: str
    views: list[str]
    precision: str
    compile: bool
    store: str
    """Type of the stored features."""


class DataSet(TypedDict, total=False):
    """The data set that a cache was made of."""

    source: str
    root: str
    """The folder that paths are relative to."""
    origin: str
    """Its kind, in words."""
    rows: int


class Weights(TypedDict, total=False):
    """The weights of the backbone."""

    source: str
    digest: str
    random: bool


class Retry(TypedDict):
    """A call of an earlier version that tried failed rows again; it is an update by now."""

    created: str
    rows: int
    failed_again: int


class Update(TypedDict):
    """A call that brought a cache up to date."""

    created: str
    kept: int
    """Rows of known pixels."""
    encoded: int
    """Images that went through the backbone."""
    gone: int
    """Rows whose name and pixels were there no more."""
    code: dict[str, str]


class Provenance(TypedDict, total=False):
    """Where a cache came from; one of another version may lack a field."""

    created: str
    dataset: DataSet
    weights: Weights
    feature_map: list[int]
    device: str
    seconds: float
    code: dict[str, str]
    versions: dict[str, str]
    retries: list[Retry]
    updates: list[Update]


def read_header(file: h5py.File) -> dict[str, str]:
    """Read the texts of a header. Whether they match their checksum is for who has the features too."""
    return {name: get_attribute(file, name) for name in HEADER}


def put_header(file: h5py.File, header: Mapping[str, str]) -> None:
    """Write a header with its checksum into a cache whose features are there."""
    for name, text in header.items():
        put_attribute(file, name, text)
    features = file["features"]
    put_attribute(file, "header_sha256", header_digest(header, features.shape, features.dtype))


def header_digest(header: Mapping[str, str], shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Compute the SHA-256 over the header, and over shape and byte order.

    Without those the same bytes are other numbers.
    """
    return digest([dict(header), list(shape), dtype.str if dtype.str in DTYPES else "another type"])
