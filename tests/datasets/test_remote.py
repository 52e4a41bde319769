"""Images that URLs name: permission, downloads that are kept, and storage."""

import errno
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from hfc.datasets import manifest, remote, web
from hfc.datasets.reading import UNKNOWN, read_bytes, stamp
from hfc.datasets.remote import Downloads, beside, shown
from hfc.errors import ConfigError, DatasetError, HfcError, ImageError, StoreError
from tests.support.server import Reply, Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    replies = {"/1.jpg": Reply(b"one", headers={"ETag": '"1"'}), "/2.jpg?key=a": Reply(b"two")}
    with serving(replies) as server:
        yield server


def write(folder: Path, *paths: str) -> Path:
    file = folder / "m.csv"
    file.write_text("\n".join(["path,label,split", *(f"{path},Tee,train" for path in paths)]), "utf-8")
    return file


def test_a_manifest_names_files_and_urls(server: Server, tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(b"zero")
    regions = manifest.read(
        write(tmp_path, "0.jpg", f"{server.url}/1.jpg", f"{server.url}/2.jpg?key=a"), remote=Downloads()
    )
    assert server.requests.total() == 0
    contents = [read_bytes(regions.root, path, regions.remote) for path in regions.path]
    assert contents == [b"zero", b"one", b"two"]
    stamps = [stamp(regions.root, path, regions.remote) for path in regions.path[1:]]
    assert stamps == [(3, web.version('"1"')), (3, UNKNOWN)]
    assert regions.take(regions.box[:, 0] != 0).remote is regions.remote
    assert pickle.loads(pickle.dumps(regions.remote)) == regions.remote


def test_without_permission_nothing_is_asked(server: Server, tmp_path: Path) -> None:
    file = write(tmp_path, "0.jpg", f"{server.url}/2.jpg?key=a")
    shown_url = f"{server.url}/2.jpg?…"
    message = f"{file}: row 3: the image is on the network, {shown_url}; give --remote to download it, or name a file"
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        manifest.read(file)
    url = f"{server.url}/1.jpg"
    with pytest.raises(ImageError, match=r"^it is on the network, where only hfc extract and hfc predict read, with"):
        read_bytes(tmp_path, url)
    assert stamp(tmp_path, url) == (UNKNOWN, UNKNOWN)
    assert server.requests.total() == 0


KNOWN = "http, https, s3, gs, gcs, abfs, az, hf"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (
            "file:///etc/passwd",
            f"expected a path or a URL of {KNOWN}, found one of file; for a file of this machine give its path",
        ),
        ("LOCAL://etc/passwd", f"expected a path or a URL of {KNOWN}, found one of local; for a file"),
        ("simplecache::file:///etc/passwd", "the path"),
        ("memory://1.jpg", f"expected a path or a URL of {KNOWN}, found one of memory; for a file"),
        ("ftp://example.com/1.jpg", f"expected a path or a URL of {KNOWN}, found one of ftp; for a file"),
        ("https:///1.jpg", "expected a URL with a host, found https:///1.jpg"),
        ("https://[1.jpg", "expected a URL with a host, found https://…"),
        (
            "https://me:secret@example.com/1.jpg?key=secret",
            "expected a URL without user name and password, found those in https://example.com/1.jpg?…, where they "
            "would be kept in the cache; write them into ~/.netrc",
        ),
        ("https://token@example.com/1.jpg", "expected a URL without user name and password, found those in https://ex"),
    ],
)
def test_other_urls_are_refused_with_their_row(url: str, problem: str, tmp_path: Path) -> None:
    file = write(tmp_path, "0.jpg", url)
    if problem == "the path":  # no URL: a file that is not there
        regions = manifest.read(file, remote=Downloads())
        with pytest.raises(FileNotFoundError):
            read_bytes(regions.root, regions.path[1], regions.remote)
        return
    with pytest.raises(DatasetError, match=f"^{re.escape(f'{file}: row 3: {problem}')}") as caught:
        manifest.read(file, remote=Downloads())
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)


def test_urls_that_may_hold_secrets_want_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = "https://example.com/1.jpg?key=secret"
    file = write(tmp_path, url, "https://example.com/2.jpg")
    manifest.read(file, remote=Downloads())
    assert caplog.messages == [
        f"{file}: URLs with a query are printed as ids (1 rows); if it is a secret, add an id column"
    ]
    message = f"{file}: row 3: path https://example.com/1.jpg?… was listed before, in row 2; list each region once"
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        manifest.read(write(tmp_path, url, url), remote=Downloads())
    caplog.clear()
    file.write_text(f"id,path,label\n1,{url},Tee\n")
    manifest.read(file, remote=Downloads())
    assert caplog.messages == []


def test_a_path_with_a_colon_is_no_url(tmp_path: Path) -> None:
    (tmp_path / "a:").mkdir()
    (tmp_path / "a:" / "1.jpg").write_bytes(b"a file")
    regions = manifest.read(write(tmp_path, "a:/1.jpg", "a://1.jpg"))
    assert [read_bytes(regions.root, path) for path in regions.path] == [b"a file"] * 2


def test_what_was_downloaded_is_kept_until_the_cache_is_whole(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/1.jpg"
    downloads = beside(tmp_path / "c.h5")
    assert downloads.look(url) == (b"one", web.version('"1"'))
    server.replies["/1.jpg"] = Reply(b"another")
    assert downloads.look(url) == (b"one", web.version('"1"'))
    assert beside(tmp_path / "c.h5").read(url) == b"one"
    assert server.requests == {"GET /1.jpg": 1}
    (folder,) = tmp_path.iterdir()
    assert folder.name == "c.h5.downloads"
    (file,) = folder.iterdir()
    file.with_name(f"{file.name}.12-34.part").write_bytes(b"of a killed process")
    (folder / "note.txt").write_text("of somebody else")
    downloads.remove()
    assert [path.name for path in folder.iterdir()] == ["note.txt"]
    assert downloads.read(url) == b"another"
    (folder / "note.txt").unlink()
    downloads.remove()
    downloads.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [b"", b"12345", None])
def test_what_is_not_whole_is_downloaded_again(damage: bytes | None, server: Server, tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    downloads.read(f"{server.url}/1.jpg")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1] if damage is None else damage)
    assert downloads.read(f"{server.url}/1.jpg") == b"one"
    assert server.requests == {"GET /1.jpg": 2}
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_is_not_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^HTTP 404 Not Found$"):
        Downloads(tmp_path).read(f"{server.url}/3.jpg")
    server.replies["/3.jpg"] = Reply(b"three")
    assert Downloads(tmp_path).read(f"{server.url}/3.jpg") == b"three"


def test_a_full_disk_stops_the_work(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    message = f"{tmp_path}: a download cannot be kept: No space left on device; make room and run again"
    with pytest.raises(StoreError, match=f"^{re.escape(message)}$"):
        Downloads(tmp_path).read(f"{server.url}/1.jpg")


def test_a_server_that_answers_nothing_but_get_has_no_stamp(server: Server) -> None:
    assert Downloads().stamp(f"{server.url}/none.jpg") == (UNKNOWN, UNKNOWN)


class Bucket(MemoryFileSystem):
    """Storage in memory in the place of S3, with versions as S3 has them."""

    protocol: ClassVar[Any] = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def info(self, path: str, **kwargs: object) -> dict[str, object]:
        found: dict[str, object] = super().info(path, **kwargs)
        return {**found, "ETag": f"version {found['size']}"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setitem(remote.STORAGE, "s3", "fsspec")
    monkeypatch.setattr(fsspec, "filesystem", lambda scheme: {"s3": Bucket()}[scheme])
    remote._filesystem.cache_clear()
    yield Bucket()
    remote._filesystem.cache_clear()
    Bucket.store.clear()


def test_storage_is_read_through_fsspec(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.pipe("s3://bucket/1.jpg", b"one")
    regions = manifest.read(write(tmp_path, "s3://bucket/1.jpg", "s3://bucket/2.jpg"), remote=Downloads(tmp_path / "d"))
    assert read_bytes(regions.root, regions.path[0], regions.remote) == b"one"
    assert stamp(regions.root, regions.path[0], regions.remote) == (3, web.version("version 3"))
    with pytest.raises(ImageError, match=r"^cannot be read from s3: no such file$"):
        read_bytes(regions.root, regions.path[1], regions.remote)
    bucket.rm("s3://bucket/1.jpg")
    assert read_bytes(regions.root, regions.path[0], regions.remote) == b"one"  # as it was downloaded
    bucket.pipe("s3://bucket/2.jpg", b"large")
    monkeypatch.setattr(remote, "LARGEST", 4)
    with pytest.raises(ImageError, match=r"^more than 4 bytes$"):
        read_bytes(regions.root, regions.path[1], regions.remote)


@pytest.mark.parametrize(
    ("missing", "url", "message"),
    [
        ("aiohttp", "https://example.com/1.jpg", 'URLs are read by aiohttp, .*pip install "hfc\\[remote\\]"$'),
        ("fsspec", "s3://bucket/1.jpg", 'URLs of storage are read by fsspec, .*pip install "hfc\\[remote\\]"$'),
        ("", "s3://bucket/1.jpg", "^s3:// is read by s3fs, which is not installed: python -m pip install s3fs$"),
    ],
)
def test_a_package_that_is_missing_is_named_before_any_work(
    missing: str, url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    else:
        monkeypatch.setattr(remote, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        manifest.read(write(tmp_path, url), remote=Downloads())


def test_secrets_are_not_shown() -> None:
    assert shown("https://me:word@example.com:81/a.jpg?key=word#word") == "https://example.com:81/a.jpg?…"
    assert shown("s3://bucket/a.jpg") == "s3://bucket/a.jpg"
    assert issubclass(StoreError, HfcError)
