"""Memory that several processes have once."""

import gc
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfc.train import memory
from hfc.train.memory import attach, create
from tests.test_architecture import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux alone has such memory")

# Reads all of another process's array, writes into its own view, and prints what it sees and what it holds itself.
READER = """
import sys
import numpy as np
from hfc.train.memory import Place, attach
array = attach(eval(sys.argv[1]))
total = int(array.sum(dtype=np.int64))
array[0, 0] = 99
maps = open("/proc/self/smaps").read()
start = maps.index("memfd:hfc-")
own = {line.split(":")[0]: line.split()[1] for line in maps[start:].splitlines()[1:24] if " kB" in line}
print(total, maps[start:].split()[0], own["Rss"], int(own["Private_Clean"]) + int(own["Private_Dirty"]))
"""


def test_another_process_maps_the_array_and_holds_nothing_of_it() -> None:
    shape = 64, 4096  # 512 kB
    array, place = create(shape, np.dtype(np.int16)) or pytest.fail("there is no such memory")
    array[:] = np.arange(4096)
    words = [sys.executable, "-c", READER, repr(place)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    total, name, present, own = done.stdout.split()
    assert int(total) == 64 * sum(range(4096))
    assert name == f"memfd:{place.name}"
    assert int(present) == 512
    assert int(own) == os.sysconf("SC_PAGESIZE") // 1024  # the page that it wrote to
    assert array[0, 0] == 0


@pytest.mark.parametrize(
    "change", [{"name": "hfc-0"}, {"descriptor": 0}, {"descriptor": 10**6}, {"process": 2**22 + 1}]
)
def test_what_is_not_that_memory_is_not_taken(change: dict[str, object]) -> None:
    kept, place = create((2, 3), np.dtype(np.float32)) or pytest.fail("there is no such memory")
    assert attach(place) is not None
    assert attach(replace(place, **change)) is None
    del kept


def test_it_goes_with_the_array() -> None:
    array, place = create((2, 3), np.dtype(np.float32)) or pytest.fail("there is no such memory")
    view = array[1:]
    del array
    gc.collect()
    assert attach(place) is not None
    del view
    gc.collect()
    assert attach(place) is None


def test_it_goes_with_a_process_that_is_killed() -> None:
    code = "import numpy; from hfc.train.memory import create; array, place = create((9, 9), numpy.dtype('f4'))"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; print(place, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout
        line = process.stdout.readline().decode()
        place = eval(line, {"Place": memory.Place})
        assert attach(place) is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert attach(place) is None
        assert not [path for path in Path("/dev/shm").glob("*") if place.name in path.name]


def test_where_the_system_has_none_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    assert create((0, 3), np.dtype(np.float32)) is None  # nothing to map
    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as context:
        context.setattr(os, "ftruncate", refuse)
        assert create((2, 3), np.dtype(np.float32)) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    monkeypatch.setattr(os, "memfd_create", refuse)
    assert create((2, 3), np.dtype(np.float32)) is None
    monkeypatch.delattr(os, "memfd_create")
    assert create((2, 3), np.dtype(np.float32)) is None
