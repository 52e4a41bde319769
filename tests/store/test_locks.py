"""One process writes at a time and a killed one locks nobody out, also where a file system has no locks."""

import errno
import fcntl
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hfc import store
from hfc.errors import StoreError, warn_once
from hfc.store import locks
from tests.support.caches import shard_of
from tests.support.processes import python

NAMES = ["ENOSYS", "EOPNOTSUPP", "ENOLCK", "EINVAL"]
# Imports hfc's lock on a file system that refuses every flock with the error given first; "" for one that has locks.
WITHOUT = """
import errno, fcntl, os, sys, time
from pathlib import Path
name, path = sys.argv[1], Path(sys.argv[2])
def refuse(*arguments):
    raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
if name:
    fcntl.flock = refuse
from hfc import store
from hfc.errors import StoreError, warn_once
"""
HOLD = WITHOUT + "with store.locked(path):\n    print('held', flush=True)\n    time.sleep(60)\n"
# Counts in a file, which loses counts as soon as two processes are in the block at once.
COUNT = (
    WITHOUT
    + """
counter = path.with_name("counter")
done = 0
while done < 20:
    try:
        with store.locked(path):
            count = int(counter.read_text())
            time.sleep(0.002)
            counter.write_text(str(count + 1))
            done += 1
    except StoreError as error:
        assert "is writing to it" in str(error) or "takes over the lock" in str(error), error
"""
)


def start(code: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lockless(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(fcntl, "flock", refuse)
    warn_once.cache_clear()


@pytest.mark.parametrize("name", ["", *NAMES])
def test_a_lock_keeps_others_out_and_ends_with_its_killed_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.h5"
    with start(HOLD, name, path) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        if name:
            lockless(monkeypatch, name)
        message = rf"^{re.escape(str(path))}: process {holder.pid} on {platform.node()} is writing to it; wait for it, "
        with pytest.raises(StoreError, match=message + "or give another --out$"), store.locked(path):
            pass
        holder.kill()
        holder.wait()
    assert (tmp_path / "c.h5.lock").exists()
    with store.locked(path), pytest.raises(StoreError, match="is writing to it"), store.locked(path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "ENOSYS"])
def test_of_processes_that_race_one_is_in_at_a_time(name: str, tmp_path: Path) -> None:
    """They begin with the lock of a killed one, which each of them may take over."""
    with start(HOLD, name, tmp_path / "c.h5") as dead:
        assert dead.stdout
        dead.stdout.readline()
        dead.kill()
    (tmp_path / "counter").write_text("0")
    racing = [start(COUNT, name, tmp_path / "c.h5") for _ in range(3)]
    ended = [(*process.communicate(timeout=100), process.returncode) for process in racing]
    assert [code for _, _, code in ended] == [0, 0, 0], ended
    assert (tmp_path / "counter").read_text() == "60"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_a_process_that_has_the_number_of_a_dead_one_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockless(monkeypatch, "ENOSYS")
    record = f"process {os.getpid()} on {platform.node()}\nstarted at tick 1\n"
    (tmp_path / "c.h5.lock").write_text(record)
    with store.locked(tmp_path / "c.h5"):
        assert (tmp_path / "c.h5.lock").read_text() != record
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("record", "who"),
    [("process 7 on elsewhere\nstarted at tick 5\n", "process 7 on elsewhere"), ("", "another process")],
)
def test_a_lock_of_another_machine_is_left_and_the_message_says_how_to_remove_it(
    record: str, who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockless(monkeypatch, "ENOSYS")
    monkeypatch.setattr(locks, "NAMELESS_S", 0.01)
    path, lock = tmp_path / "c.h5", tmp_path / "c.h5.lock"
    lock.write_text(record)
    with pytest.raises(StoreError) as caught, store.locked(path):
        pass
    assert str(caught.value) == (
        f"{path}: {who} is writing to it, or was killed: this file system has no locks to tell; wait for it, or if it "
        f"does not run any more, remove {lock}"
    )
    assert lock.read_text() == record


@pytest.mark.parametrize("name", ["", "ENOSYS"])
def test_a_file_that_is_no_lock_is_left(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name:
        lockless(monkeypatch, name)
    lock = tmp_path / "c.h5.lock"
    lock.write_text('{"packages": []}')
    with pytest.raises(StoreError) as caught, store.locked(tmp_path / "c.h5"):
        pass
    assert str(caught.value) == f"{lock}: is in the way: it is not a lock of hfc; move it away or give another --out"
    assert lock.read_text() == '{"packages": []}'


def shard() -> store.Shard:
    return shard_of(np.ones((3, 1, 8), np.float16))


def refuse_to_sync_folders(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("name", ["EINVAL", "EOPNOTSUPP", "ENOSYS"])
def test_what_cannot_be_waited_for_is_written_all_the_same_and_said_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = getattr(errno, name)
    refuse_to_sync_folders(monkeypatch, code)
    warn_once.cache_clear()
    for number in range(3):
        store.write_shard(tmp_path / f"{number}.h5", shard(), {"a": 1})
        assert store.read_shard(tmp_path / f"{number}.h5", {"a": 1}).digest() == shard().digest()
    assert [record.getMessage() for record in caplog.records] == [
        f"this file system cannot wait for a folder to be on the disk ({os.strerror(code)}); going on without"
    ]


@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_folder_that_is_not_on_the_disk_is_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = getattr(errno, name)
    refuse_to_sync_folders(monkeypatch, code)
    with pytest.raises(StoreError) as caught:
        store.write_shard(tmp_path / "0.h5", shard(), {"a": 1})
    assert str(caught.value) == f"{tmp_path / '0.h5'}: cannot be written: {os.strerror(code)}"


def test_a_cache_is_read_where_hdf5_can_lock_nothing(tmp_path: Path) -> None:
    """HDF5 asks for a shared lock by itself; that another has an exclusive one is all the same to hfc."""
    store.write_shard(tmp_path / "0.h5", shard(), {"a": 1})
    with (tmp_path / "0.h5").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert store.read_shard(tmp_path / "0.h5").digest() == shard().digest()


def test_a_lock_that_hdf5_was_told_to_take_is_named_and_not_called_damage(tmp_path: Path) -> None:
    from tests.support.made_up import small_cache

    path = small_cache(tmp_path / "c.h5")
    code = "import sys; from pathlib import Path; from hfc import store; print(*store.problems(Path(sys.argv[1])))"
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"},
        )
    assert done.stdout.startswith(f"{path}: cannot be locked; set HDF5_USE_FILE_LOCKING=FALSE: ")


LOCKLESS = """
import errno, fcntl, os, signal, stat, sys, time
from pathlib import Path
def refuse(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = refuse
real = os.fsync
def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "Invalid argument")
    real(descriptor)
os.fsync = fsync
if sys.argv[1] == "killed":
    replace = Path.replace
    def replaced(self, other):
        replace(self, other)
        os.kill(os.getpid(), signal.SIGKILL)
    Path.replace = replaced
from cli.main import main
main(sys.argv[2:])
"""


def test_both_stages_finish_without_locks_even_after_a_kill(tmp_path: Path) -> None:
    def hfc(kind: str, *words: object) -> tuple[int, str]:
        command = [*python(), "-c", LOCKLESS, kind, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        return done.returncode, done.stderr

    assert hfc("whole", "sample", tmp_path / "s", "--images", 40)[0] == 0
    tiny = ("--backbone", "test_efficientnet", "--weights", "random", "--image-size", 32, "--shard-size", 8)
    words = ("extract", tmp_path / "s", *tiny, "--out", tmp_path / "c.h5")
    assert hfc("killed", *words)[0] == -9
    assert (tmp_path / "c.h5.lock").exists()
    code, said = hfc("whole", *words)
    assert code == 0, said
    assert said.count("this file system has no locks (No locks available)") == 1
    assert said.count("cannot wait for a folder to be on the disk") == 1
    train = ("--hierarchy", "deepfashion-5", "--method", "flat", "--set", "epochs=1", "--set", "batch_size=8")
    code, said = hfc("whole", "train", tmp_path / "c.h5", *train, "--out", tmp_path / "runs")
    assert code == 0, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.h5", "runs", "s"]


def test_the_system_tells_when_a_process_began() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        first = locks._start(process.pid)
        time.sleep(0.02)
        assert (first, locks._start(process.pid)) == (first, first)
        assert first
        assert first.isdigit()
        process.kill()
        process.wait()
    assert locks._start(process.pid) is None
