"""Folders that list what hfc wrote in them, whatever stops the writing, and texts that say so themselves."""

import hashlib
import json
from pathlib import Path

import pytest

from hfc.errors import RunError
from hfc.provenance import is_sealed, listed, sealed, write_folder

MARKS = ["mark.json"]


def files(word: str, *names: str) -> dict[str, bytes]:
    return {
        "a.txt": f"{word} a".encode(),
        "mark.json": b'{"x": 1}',
        **{name: f"{word} {name}".encode() for name in names},
    }


def stop_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the process's work at one of its renamings."""
    real, done = Path.replace, [0]

    def replace(self: Path, target: Path) -> Path:
        done[0] += 1
        if done[0] == number:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)


def test_a_folder_lists_its_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", files("first", "in/b.txt"), MARKS, "it")
    assert json.loads((tmp_path / "out" / "mark.json").read_text()) == {
        "x": 1,
        "hfc_files": {
            name: hashlib.sha256(f"first {name[0] if name == 'a.txt' else name}".encode()).hexdigest()
            for name in ("a.txt", "in/b.txt")
        },
    }
    assert (tmp_path / "out" / "in" / "b.txt").read_text() == "first in/b.txt"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_whatever_stops_a_second_writing_a_third_replaces_all(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "out", files("first", "b.txt", "c.txt", "old.txt"), MARKS, "it")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with monkeypatch.context() as context:
        stop_at(number, context)
        with pytest.raises(KeyboardInterrupt):
            write_folder(tmp_path / "out", files("second", "b.txt", "c.txt"), MARKS, "it")
    write_folder(tmp_path / "out", files("third", "b.txt", "c.txt"), MARKS, "it")
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.name != "mark.json"}
    assert found == {"a.txt": "third a", "b.txt": "third b.txt", "c.txt": "third c.txt", "notes.txt": "mine"}


def test_nothing_is_changed_where_one_file_is_somebody_elses(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(out, files("first", "b.txt"), MARKS, "it")
    (out / "c.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(RunError) as caught:
        write_folder(out, files("second", "b.txt", "c.txt"), MARKS, "it")
    assert str(caught.value) == (
        f"{out / 'c.txt'}: is in the way: hfc did not write it, or it was changed since; move it away or name another "
        "place"
    )
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_mark_speaks_of_its_own_folder_alone(tmp_path: Path) -> None:
    outside = tmp_path / "notes.txt"
    outside.write_text("mine")
    write_folder(tmp_path / "out", files("first"), MARKS, "it")
    mark = tmp_path / "out" / "mark.json"
    digest = hashlib.sha256(b"mine").hexdigest()
    content = json.loads(mark.read_text())
    content["hfc_files"] |= {"../notes.txt": digest, str(outside): digest}
    mark.write_text(json.dumps(content))
    assert listed(mark).keys() == {"a.txt"}
    write_folder(tmp_path / "out", files("second"), MARKS, "it")
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("text", ["", "a", "a\n", "a\r\nb\n\n", "é # b\n"])
def test_a_sealed_text_is_known_until_it_is_changed(text: str, tmp_path: Path) -> None:
    file = tmp_path / "t"
    for opening, closing in (("#", ""), ("<!--", " -->")):
        whole = sealed(text, opening, closing)
        assert whole.startswith(text)
        file.write_bytes(whole.encode())
        assert is_sealed(file)
        for other in (whole + "x", "x" + whole, whole[:-1], text, whole + whole, whole.replace("SHA", "sha")):
            file.write_bytes(other.encode())
            assert not is_sealed(file), other
