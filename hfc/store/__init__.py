"""The feature cache: schema 2 in HDF5; schema 1 is read too. The only importer of h5py.

A file under its final name is always whole: it is written under a temporary name, closed, read back and compared,
synced to disk, and renamed. Every byte that can become a number is under a checksum: HDF5's own over its metadata
(`files.LIBVER`), fletcher32 over every chunk, SHA-256 over the features, the rows and the header.
"""

from hfc.store.assembly import assemble
from hfc.store.cache import FeatureStore, problems
from hfc.store.files import (
    CHUNK_ROWS,
    Failures,
    Features,
    ahead,
    encode_text,
    is_cache,
    refuse_other_file,
    remove_leftovers,
)
from hfc.store.fingerprints import DIGEST_BYTES, Fingerprints, identities
from hfc.store.header import SCHEMA, DataSet, KeyFields, Provenance, Update
from hfc.store.locks import locked
from hfc.store.predictions import (
    HeldOut,
    Kept,
    Predictions,
    Shortened,
    count_kept,
    read_predictions,
    shortened,
    write_predictions,
)
from hfc.store.shards import (
    Shard,
    key_difference,
    read_shard,
    read_shard_rows,
    refuse_other_key,
    remove_shards,
    shard_files,
    shard_folder,
    write_shard,
)
from hfc.store.survey import Survey, survey
from hfc.store.table import Table

__all__ = [
    "CHUNK_ROWS",
    "DIGEST_BYTES",
    "SCHEMA",
    "DataSet",
    "Failures",
    "FeatureStore",
    "Features",
    "Fingerprints",
    "HeldOut",
    "Kept",
    "KeyFields",
    "Predictions",
    "Provenance",
    "Shard",
    "Shortened",
    "Survey",
    "Table",
    "Update",
    "ahead",
    "assemble",
    "count_kept",
    "encode_text",
    "identities",
    "is_cache",
    "key_difference",
    "locked",
    "problems",
    "read_predictions",
    "read_shard",
    "read_shard_rows",
    "refuse_other_file",
    "refuse_other_key",
    "remove_leftovers",
    "remove_shards",
    "shard_files",
    "shard_folder",
    "shortened",
    "survey",
    "write_predictions",
    "write_shard",
]
