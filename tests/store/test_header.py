"""The schema of the file, its digests computed by hand."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.support.caches import write

COLUMNS = {
    *("features", "id", "path", "label", "split", "group", "box"),
    *("ok", "failures", "sha256", "size", "modified"),
}


@pytest.mark.parametrize(("n", "dtype"), [(200, "float16"), (600, "float32")])
def test_the_file_has_schema_2(n: int, dtype: str, tmp_path: Path) -> None:
    written = write(tmp_path / "c.h5", n, dtype)
    with h5py.File(tmp_path / "c.h5") as file:
        assert set(file) == COLUMNS
        features = file["features"]
        assert (features.shape, features.dtype) == ((n, 1, 8), np.dtype(dtype))
        assert (features.chunks, features.fletcher32) == ((min(n, 256), 1, 8), True)
        for name in ("id", "path", "label", "split", "group"):
            assert file[name].shape == (n,)
            assert h5py.check_string_dtype(file[name].dtype).encoding == "utf-8"
            assert file[name].fletcher32
        assert (file["box"].dtype, file["box"].shape) == (np.float32, (n, 4))
        assert (file["ok"].dtype, file["ok"].shape) == (np.bool_, (n,))
        assert (file["sha256"].dtype, file["sha256"].shape) == (np.uint8, (n, 32))
        for name in ("size", "modified"):
            assert (file[name].dtype, file[name].shape) == (np.dtype("<i8"), (n,))
        assert all(file[name].fletcher32 for name in COLUMNS)
        assert file["failures"].dtype.names == ("row", "reason")
        assert file["failures"][:].tolist() == [(1, b"bad")]
        # The digests by hand: the bytes of the features, and the settings as sorted JSON without blanks.
        key = '{"backbone":"b","image_size":224}'
        attributes = {n: v.decode() if isinstance(v, bytes) else v for n, v in file.attrs.items()}
        stored = attributes.pop("header_sha256")
        names = ("feature_key", "key_fields", "config", "provenance", "features_sha256", "table_sha256")
        header = [{name: attributes[name] for name in names}, [n, 1, 8], np.dtype(dtype).str]
        canonical = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert stored == hashlib.sha256(canonical.encode()).hexdigest()
        assert len(attributes.pop("table_sha256")) == 64
        assert {name: attributes.pop(name) for name in ("schema", "complete")} == {"schema": 2, "complete": True}
        assert attributes.pop("features_sha256") == hashlib.sha256(written.tobytes()).hexdigest()
        assert attributes.pop("feature_key") == hashlib.sha256(key.encode()).hexdigest()
        assert {name: json.loads(value) for name, value in attributes.items()} == {
            "key_fields": {"backbone": "b", "image_size": 224},
            "config": {"a": 1},
            "provenance": {"dataset": {"root": "/r", "origin": "o"}},
        }
