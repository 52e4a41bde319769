"""Stage 1 under fire: kills, signals, full disks, second processes, bad images. Every call here is a process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cli.extract import stop_signals
from hfc import store
from hfc.config import ExtractConfig, resolve
from hfc.errors import ConfigError
from hfc.extract.stage import extract
from tests.support.deepfashion_tree import write_images
from tests.support.processes import python

ROOT = Path(__file__).parents[2]
ROWS, SHARD = 24, 4
WORDS = ("--backbone", "test_efficientnet", "--weights", "random", "--image-size", "32", "--precision", "fp32")
CUT = ("--shard-size", str(SHARD), "--batch-size", "1")

# Runs hfc with one function replaced, so that the process dies, or the disk is full, at an exact instant.
RIGGED = """
import os, resource, signal, sys, threading
from pathlib import Path

kind, count, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
calls = 0

def die_at(function, before):
    def rigged(*args, **kwargs):
        global calls
        if threading.current_thread().name.startswith("sync"):  # it syncs while it waits: how often is chance
            return function(*args, **kwargs)
        calls += 1
        if calls == count and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return rigged

if kind == "fsync":
    os.fsync = die_at(os.fsync, True)
elif kind == "before rename":
    Path.replace = die_at(Path.replace, True)
elif kind == "after rename":
    Path.replace = die_at(Path.replace, False)
elif kind == "write":
    from hfc.store import files
    files._Patient.write = die_at(files._Patient.write, True)
elif kind == "quota":
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))
from cli.main import main
main(words)
"""


def start(*words: object, rigged: tuple[str, int] | None = None) -> subprocess.Popen[str]:
    program = ["-c", RIGGED, rigged[0], str(rigged[1])] if rigged else ["-m", "cli"]
    command = [*python(), *program, "extract", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def hfc(*words: object, rigged: tuple[str, int] | None = None) -> tuple[int, str]:
    """Exit code and everything printed."""
    process = start(*words, rigged=rigged)
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def checksum(path: Path) -> str:
    with store.FeatureStore(path) as cache:
        cache.verify()
        return cache.features_sha256


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of whole images."""
    folder = tmp_path_factory.mktemp("images")
    names = [f"{i}.jpg" for i in range(ROWS)]
    write_images(folder, names)
    manifest = folder / "m.csv"
    manifest.write_text("\n".join(["path,label,split", *(f"{name},L,train" for name in names)]))
    return manifest


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checksum of one call from beginning to end."""
    path = tmp_path_factory.mktemp("whole") / "c.h5"
    code, said = hfc(images, "--out", path, *WORDS, *CUT)
    assert code == 0, said
    return checksum(path)


def only_the_cache(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == ["c.h5"]


# Six shards and the cache: seven files, each synced twice (itself, then its folder) and renamed once.
INSTANTS = [("write", 50), ("after rename", 3), ("before rename", 7)]
MORE = [
    *(("write", 70), ("fsync", 1), ("fsync", 8), ("fsync", 13), ("fsync", 14)),
    *(("before rename", 3), ("after rename", 7)),
]
RENAMED = [("after rename", 7), ("fsync", 14)]
MARKED = [*INSTANTS, *(pytest.param(instant, marks=pytest.mark.slow) for instant in MORE)]


@pytest.mark.parametrize("instant", MARKED, ids=str)
def test_a_kill_at_any_instant_costs_the_shard_in_hand(
    instant: tuple[str, int], images: Path, undisturbed: str, tmp_path: Path
) -> None:
    words = (images, "--out", tmp_path / "c.h5", *WORDS, *CUT)
    code, _ = hfc(*words, rigged=instant)
    assert code == -signal.SIGKILL
    shards = {path: path.stat().st_mtime_ns for path in store.shard_files(tmp_path / "c.h5")}
    code, said = hfc(*words)
    assert code == 0, said
    assert checksum(tmp_path / "c.h5") == undisturbed
    assert only_the_cache(tmp_path)
    if instant not in RENAMED:  # by then the cache was there, and nothing was left to do
        resumed = SHARD * len(shards)
        assert (f"resumed    {resumed} regions" in said) == (resumed > 0)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_asked_to_stop_it_finishes_the_shard_and_says_how_to_go_on(
    number: signal.Signals, images: Path, undisturbed: str, tmp_path: Path
) -> None:
    words = (images, "--out", tmp_path / "c.h5", *WORDS, "--batch-size", "1", "--shard-size", "1")
    process = start(*words)
    while not store.shard_files(tmp_path / "c.h5"):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    done = len(store.shard_files(tmp_path / "c.h5"))
    assert 0 < done < ROWS
    assert "stopping after the current shard; press Ctrl-C or send the signal again to stop at once" in err
    assert f"interrupted; {done} of {ROWS} regions are done and kept; run the same command again to go on" in err
    assert not list(tmp_path.rglob("*.part"))
    assert hfc(*words)[0] == 0
    assert checksum(tmp_path / "c.h5") == undisturbed


def test_asked_a_second_time_it_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# A shard takes about 6 KB, the cache 30 KB: the first limit stops the first shard, the second the assembly. With five
# bytes not even the lock can be written into.
@pytest.mark.parametrize("limit", [20000, *(pytest.param(n, marks=pytest.mark.slow) for n in (3000, 5))])
def test_a_full_quota_is_said_and_leaves_what_can_be_resumed(
    limit: int, images: Path, undisturbed: str, tmp_path: Path
) -> None:
    words = (images, "--out", tmp_path / "c.h5", *WORDS, *CUT)
    code, said = hfc(*words, rigged=("quota", limit))
    assert code == 1
    assert "cannot be written: " in said
    assert "File too large" in said
    assert not (tmp_path / "c.h5").exists()
    assert not list(tmp_path.rglob("*.part"))
    shards = store.shard_files(tmp_path / "c.h5")
    assert (len(shards) == 6) == (limit == 20000)
    assert hfc(*words)[0] == 0
    assert checksum(tmp_path / "c.h5") == undisturbed


def test_a_second_process_is_refused(images: Path, tmp_path: Path) -> None:
    with store.locked(tmp_path / "c.h5"):
        code, said = hfc(images, "--out", tmp_path / "c.h5", *WORDS)
    assert code == 1
    assert f"c.h5: process {os.getpid()} on " in said
    assert "is writing to it; wait for it, or give another --out" in said


def torchrun(*words: object) -> tuple[int, str]:
    command = [*python(), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command += [*python(), "-m", "cli", "extract", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_two_processes_of_torchrun_share_the_shards(images: Path, undisturbed: str, tmp_path: Path) -> None:
    words = (images, "--out", tmp_path / "c.h5", *WORDS, *CUT)
    code, said = torchrun(*words)
    assert code == 0, said
    assert checksum(tmp_path / "c.h5") == undisturbed
    assert said.count(f"{ROWS} regions in") == 1
    assert only_the_cache(tmp_path)
    code, said = torchrun(*words)
    assert (code, said.count("already complete")) == (0, 1)


def test_under_torchrun_the_error_of_the_leading_process_ends_all(images: Path, tmp_path: Path) -> None:
    assert hfc(images, "--out", tmp_path / "c.h5", *WORDS, *CUT)[0] == 0
    code, said = torchrun(images, "--out", tmp_path / "c.h5", *WORDS, *CUT, "--pool", "max")
    assert code == 1
    assert "made with pool = mean, asked for pool = max" in said
    assert "rank 0 stopped: " in said


def test_ray_is_asked_for_where_it_is_not_installed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    settings = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "engine": "ray"}
    with pytest.raises(ConfigError, match=r'--engine ray needs Ray: python -m pip install "hfc\[ray\]"'):
        extract(images, tmp_path / "c.h5", resolve(ExtractConfig, settings))


RAY_KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from hfc.config import ExtractConfig, resolve
from hfc.extract.stage import extract

out = Path(sys.argv[2])
settings = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "precision": "fp32",
            "shard_size": 4, "batch_size": 1, "engine": "ray"}

def kill_an_actor():
    while True:
        for file in Path("/proc").glob("[0-9]*/comm"):
            try:
                if file.read_text().startswith("ray::_Actor.mak"):  # at work: Ray names the method
                    os.kill(int(file.parent.name), signal.SIGKILL)
                    print("killed", flush=True)
                    return
            except OSError:
                pass
        time.sleep(0.005)  # or the looking alone would take a core from Ray

threading.Thread(target=kill_an_actor, daemon=True).start()
summary = extract(Path(sys.argv[1]), out, resolve(ExtractConfig, settings))
print(summary.rows, len(summary.failures))
"""


@pytest.mark.slow
def test_ray_makes_the_shards_of_a_killed_process_again(images: Path, tmp_path: Path) -> None:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    single = [sys.executable, "-m", "cli", "extract", str(images), "--out", str(tmp_path / "one.h5"), *WORDS, *CUT]
    subprocess.run(single, check=True, capture_output=True, cwd=ROOT, env=env)
    done = subprocess.run(
        [sys.executable, "-c", RAY_KILLED, str(images), str(tmp_path / "c.h5")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout
    assert f"{ROWS} 0" in done.stdout
    with store.FeatureStore(tmp_path / "c.h5") as mine, store.FeatureStore(tmp_path / "one.h5") as other:
        mine.verify()
        # One thread each, so that not even the order of sums differs.
        np.testing.assert_array_equal(mine.features(), other.features())
        features = mine.features()
    # With as many threads as there are cores, one unit in the last place of float16 at most.
    single[single.index(str(tmp_path / "one.h5"))] = str(tmp_path / "many.h5")
    del env["OMP_NUM_THREADS"]
    subprocess.run(single, check=True, capture_output=True, cwd=ROOT, env=env)
    with store.FeatureStore(tmp_path / "many.h5") as cache:
        assert (np.abs(cache.features() - features) <= np.spacing(np.abs(features))).all()
