"""Wherever pixels come from, the features are those of the folder, bit for bit."""

from pathlib import Path

import numpy as np
import pytest

from hfc.extract.stage import extract
from tests.support import parquet
from tests.support.deepfashion_tree import write_images
from tests.support.extraction import config, read

pytestmark = pytest.mark.usefixtures("small_turns")


def test_parquet_gives_the_features_of_the_folder_bit_for_bit(tmp_path: Path) -> None:
    names = [f"{'Tee' if i % 2 else 'Coat'}/{i:02d}.jpg" for i in range(12)]
    write_images(tmp_path / "photos", names)
    (tmp_path / "photos" / names[4]).write_bytes(b"no image")
    contents = [(tmp_path / "photos" / name).read_bytes() for name in names]
    labels = [name.split("/")[0] for name in names]
    for shard in range(2):
        file = tmp_path / "own" / "data" / f"train-{shard:05d}-of-00002.parquet"
        parquet.write_images(file, contents[6 * shard :][:6], labels[6 * shard :][:6], rows_a_group=4)
    extract(tmp_path / "photos", tmp_path / "photos.h5", config(workers=4))
    extract(tmp_path / "own", tmp_path / "own.h5", config(workers=4))
    (features, folder, _), (packed, table, _) = read(tmp_path / "photos.h5"), read(tmp_path / "own.h5")
    order = np.argsort([path[-len("00.jpg") :] for path in folder.regions.path])
    np.testing.assert_array_equal(packed, features[order])
    assert len(np.unique(packed[table.ok, 0, 0])) == 11  # rows in another order would not be equal
    assert table.regions.label.tolist() == folder.regions.label[order].tolist() == labels
    assert table.failures == [(4, folder.failures[0][1])]
    assert table.regions.id.tolist()[5:7] == ["train-00000-of-00002.parquet/5", "train-00001-of-00002.parquet/0"]
