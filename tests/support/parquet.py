"""Parquet files as the library `datasets` writes them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def images(contents: Sequence[bytes | None]) -> pa.Array:
    """A column of images, as of the feature `Image`."""
    return pa.array([content and {"bytes": content, "path": f"{i}.jpg"} for i, content in enumerate(contents)], IMAGE)


def write_table(
    file: Path, columns: Mapping[str, Any], features: Mapping[str, object] | None = None, **options: Any
) -> Path:
    """Write a table, with what `datasets` notes about its columns."""
    table = pa.table(dict(columns))
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, file, **options)
    return file


def write_images(
    file: Path, contents: Sequence[bytes | None], labels: Sequence[str], *, rows_a_group: int = 100
) -> Path:
    """Write images with their labels, as classes. A blank label is none."""
    names = sorted(set(labels) - {""})
    classes = pa.array([names.index(label) if label else -1 for label in labels], pa.int64())
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return write_table(file, {"image": images(contents), "label": classes}, features, row_group_size=rows_a_group)
