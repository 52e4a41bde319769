"""Wherever pixels come from, the features are those of the folder, bit for bit."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hfc.datasets import web
from hfc.datasets.parquet_file import ParquetFile
from hfc.errors import DatasetError, StoppedError
from hfc.extract.fingerprints import compare
from hfc.extract.stage import extract
from tests.support import parquet
from tests.support.deepfashion_tree import write_images
from tests.support.extraction import TINY, config, read
from tests.support.server import Reply, serving

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("small_turns")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PAUSE_S", 0.01)


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


def photographs(folder: Path) -> dict[str, Reply]:
    """Twelve photographs of two labels in a folder, and what a server answers for them."""
    names = [f"{'Tee' if i % 2 else 'Coat'}/{i:02d}.jpg" for i in range(12)]
    write_images(folder, names)
    return {f"/{name}": Reply((folder / name).read_bytes(), headers={"ETag": f'"{name}"'}) for name in names}


def manifest(file: Path, prefix: str, paths: list[str]) -> Path:
    """A manifest of photographs, by their paths or URLs; the ids are the paths."""
    rows = [f"{path[1:]},{prefix}{path},{path.split('/')[1]},train" for path in paths]
    file.write_text("\n".join(["id,path,label,split", *rows]))
    return file


def test_a_web_server_gives_the_features_of_the_folder_bit_for_bit(tmp_path: Path) -> None:
    """Also one that fails at first for every third image. What cannot be had is a failure of its row."""
    replies = photographs(tmp_path / "photos")
    paths = list(replies)
    extract(manifest(tmp_path / "own.csv", "photos", paths), tmp_path / "own.h5", config(workers=4))
    del replies[paths[5]]
    with serving(replies, fail_every=3) as server:
        source = manifest(tmp_path / "urls.csv", server.url, paths)
        extract(source, tmp_path / "urls.h5", config(workers=4, remote=True))
        assert server.requests[f"GET {paths[5]}"] <= 1 + sum(server.requests.values()) // 3
    (features, folder, _), (downloaded, table, _) = read(tmp_path / "own.h5"), read(tmp_path / "urls.h5")
    others = [row for row in range(12) if row != 5]
    np.testing.assert_array_equal(downloaded[others], features[others])
    assert len(np.unique(features[:, 0, 0])) == 12  # rows in another order would not be equal
    assert table.failures == [(5, "HTTP 404 Not Found")]
    assert table.regions.id.tolist() == folder.regions.id.tolist()
    assert table.regions.path.tolist() == [f"{server.url}{path}" for path in paths]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.csv", "own.h5", "photos", "urls.csv", "urls.h5"]


def test_without_the_flag_no_request_is_sent(tmp_path: Path) -> None:
    replies = photographs(tmp_path / "photos")
    with serving(replies) as server:
        source = manifest(tmp_path / "urls.csv", server.url, list(replies))
        with pytest.raises(DatasetError, match=r"urls\.csv: row 2: the image is on the network, .*; give --remote"):
            extract(source, tmp_path / "urls.h5", config())
        assert server.requests.total() == 0


def test_an_interrupted_extraction_downloads_only_what_is_missing(tmp_path: Path) -> None:
    replies = photographs(tmp_path / "photos")
    with serving(replies) as server:
        source = manifest(tmp_path / "urls.csv", server.url, list(replies))
        asked: list[int] = []

        def stop() -> bool:
            asked.append(0)
            return len(asked) > 2

        with pytest.raises(StoppedError):
            extract(source, tmp_path / "c.h5", config(remote=True), stop=stop)
        extract(source, tmp_path / "c.h5", config(remote=True))
        assert {path: server.requests[f"GET {path}"] for path in replies} == dict.fromkeys(replies, 1)
    assert not (tmp_path / "c.h5.downloads").exists()


def test_an_update_downloads_what_its_server_says_is_new(tmp_path: Path) -> None:
    replies = photographs(tmp_path / "photos")
    first, second, *_ = paths = list(replies)
    with serving(replies) as server:
        source = manifest(tmp_path / "urls.csv", server.url, paths)
        extract(source, tmp_path / "c.h5", config(remote=True))
        before, _, _ = read(tmp_path / "c.h5")
        assert server.requests == {f"GET {path}": 1 for path in paths}
        server.replies[first] = Reply(replies[second].content, headers={"ETag": '"of the second"'})
        write_images(tmp_path, ["new.jpg"])
        server.replies[second] = Reply((tmp_path / "new.jpg").read_bytes()[:-1], headers={"ETag": '"new"'})
        server.requests.clear()
        summary = extract(source, tmp_path / "c.h5", config(remote=True))
        assert summary
        assert (summary.encoded, summary.changed, summary.new, summary.gone) == (1, 2, 0, 0)
        asked = {f"HEAD {path}": 1 for path in paths}
        assert server.requests == {**asked, f"GET {first}": 1, f"GET {second}": 1}
    after, _, _ = read(tmp_path / "c.h5")
    np.testing.assert_array_equal(after[0], before[1])
    np.testing.assert_array_equal(after[2:], before[2:])
    assert (after[1] != before[1]).any()
    assert not (tmp_path / "c.h5.downloads").exists()


def test_what_has_no_version_is_downloaded_again_and_not_encoded(tmp_path: Path) -> None:
    replies = {path: Reply(reply.content) for path, reply in photographs(tmp_path / "photos").items()}
    with serving(replies) as server:
        source = manifest(tmp_path / "urls.csv", server.url, list(replies))
        for _ in range(2):
            summary = extract(source, tmp_path / "c.h5", config(remote=True))
        assert summary
        assert (summary.encoded, summary.kept) == (0, 12)
        assert {path: server.requests[f"GET {path}"] for path in replies} == dict.fromkeys(replies, 2)


def test_rows_of_a_parquet_file_are_read_again_only_if_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [reply.content for reply in photographs(tmp_path / "photos").values()]
    file = tmp_path / "own.parquet"
    parquet.write_images(file, contents, ["Tee"] * 12)
    os.utime(file, ns=(0, 1_700_000_000_000_000_000))  # not just now, or its bytes decide
    extract(file, tmp_path / "c.h5", config())
    before, _, _ = read(tmp_path / "c.h5")
    rows: list[int] = []
    read_row = ParquetFile.read
    monkeypatch.setattr(ParquetFile, "read", lambda self, row: (rows.append(row), read_row(self, row))[1])
    summary = extract(file, tmp_path / "c.h5", config())
    assert summary
    assert (summary.encoded, rows) == (0, [])
    parquet.write_images(file, contents[::-1], ["Tee"] * 12)
    summary = extract(file, tmp_path / "c.h5", config())
    assert summary
    # A row's name is its number, which has other pixels now: known ones.
    assert (summary.encoded, summary.changed, sorted(rows)) == (0, 12, list(range(12)))
    np.testing.assert_array_equal(read(tmp_path / "c.h5")[0], before[::-1])


@pytest.mark.parametrize("versions", [True, False])
def test_a_server_that_is_away_costs_no_features(
    versions: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it says is gone is gone, and of what it says nothing about, the features are kept."""
    replies = photographs(tmp_path / "photos")
    first, second, *_ = paths = list(replies)
    with serving(replies if versions else {path: Reply(reply.content) for path, reply in replies.items()}) as server:
        source = manifest(tmp_path / "urls.csv", server.url, paths)
        extract(source, tmp_path / "c.h5", config(remote=True))
        before, _, _ = read(tmp_path / "c.h5")
        server.replies |= dict.fromkeys(paths, Reply(status=503))
        server.replies[second] = Reply(status=404)
        summary = extract(source, tmp_path / "c.h5", config(remote=True))
        assert summary
        assert (summary.encoded, summary.kept) == (0, 11)
        after, table, _ = read(tmp_path / "c.h5")
        assert table.failures == [(1, "HTTP 404 Not Found")]
        np.testing.assert_array_equal(after[[0, *range(2, 12)]], before[[0, *range(2, 12)]])
        kept = "HTTP 503 Service Unavailable, 4 times; what is known of such images is kept"
        assert set(caplog.messages) <= {kept}  # once a process
        server.replies |= replies
        server.requests.clear()
        extract(source, tmp_path / "c.h5", config(remote=True))
        np.testing.assert_array_equal(read(tmp_path / "c.h5")[0], before)
        assert server.requests[f"GET {first}"] == (not versions)


def test_images_on_the_network_are_not_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replies = photographs(tmp_path / "photos")
    paths = list(replies)
    with serving(replies) as server:
        source = manifest(tmp_path / "urls.csv", server.url, paths)
        lines = source.read_text().splitlines()
        lines[2] = lines[2].replace(server.url, "photos")
        source.write_text("\n".join(lines))
        extract(source, tmp_path / "c.h5", config(remote=True))
        _, table, _ = read(tmp_path / "c.h5")
        server.requests.clear()
        (tmp_path / "photos" / paths[1][1:]).unlink()
        assert compare(table, tmp_path, 2) == [(paths[1][1:], "cannot read the file: No such file or directory")]
        assert server.requests.total() == 0
    assert caplog.messages == ["11 images are on the network, and are not compared"]


@pytest.mark.slow
def test_killed_while_it_downloads_it_downloads_only_the_rest(tmp_path: Path) -> None:
    names = [f"{i:03d}.jpg" for i in range(100)]
    write_images(tmp_path / "photos", names)
    replies = {f"/photos/{name}": Reply((tmp_path / "photos" / name).read_bytes(), pause_s=0.2) for name in names}
    settings = [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items()]
    with serving(replies) as server:
        source = manifest(tmp_path / "urls.csv", server.url, list(replies))
        command = ["extract", str(source), "--out", str(tmp_path / "c.h5"), "--remote", *settings]
        with subprocess.Popen([sys.executable, "-m", "cli", *command], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            while server.requests.total() < 50:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
        time.sleep(0.5)  # the server notices
        kept = {file.name for file in (tmp_path / "c.h5.downloads").iterdir() if not file.name.endswith(".part")}
        before = server.requests.total()
        assert 10 < len(kept) < 100
        subprocess.run([sys.executable, "-m", "cli", *command], cwd=ROOT, check=True, capture_output=True)
        assert server.requests.total() - before == 100 - len(kept)
    assert not (tmp_path / "c.h5.downloads").exists()
    (tmp_path / "own.csv").write_text(source.read_text().replace(f"{server.url}/", ""))
    extract(tmp_path / "own.csv", tmp_path / "own.h5", config())
    assert read(tmp_path / "own.h5")[2] == read(tmp_path / "c.h5")[2]
