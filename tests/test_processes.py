"""Forked processes, which tests start instead of Python, do what Python does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere tests start Python itself")

PROGRAMS = {
    "words": "import sys; print(sys.argv); print('warned', file=sys.stderr); sys.exit(3)",
    "message": "import sys; sys.exit('no such thing')",
    "error": "1 / 0",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "folder": "import os, sys; print(os.getcwd(), os.environ['GIVEN'], sys.stdin.read())",
    "letters": "import sys; sys.stdout.reconfigure(errors='backslashreplace'); print('ü α')",
    "at exit": "import atexit, threading, time; atexit.register(print, 'end')\n"
    "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()",
    "streams": "import sys; print([stream is None for stream in (sys.stdin, sys.stderr)])",
}


def ended(start: list[str], program: str, folder: Path, streams: str) -> tuple[int, str, str]:
    """Exit code and what is printed, without the lines of a traceback that name the files of Python's own."""
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" {streams}', "bash", *start, "-c", program, "a", "b c"],
        capture_output=True,
        text=True,
        encoding="latin-1",
        cwd=folder,
        input="typed",
        env=os.environ | {"GIVEN": "1", "PYTHONIOENCODING": "latin-1"},
    )
    return done.returncode, done.stdout, done.stderr.splitlines()[-1] if done.stderr else ""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_forked_process_ends_and_prints_as_python_does(name: str, tmp_path: Path) -> None:
    streams = "<&- 2>&-" if name == "streams" else ""
    want = ended([sys.executable], PROGRAMS[name], tmp_path, streams)
    assert ended(python(), PROGRAMS[name], tmp_path, streams) == want


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_forked_process(number: signal.Signals, tmp_path: Path) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    words = [*python(), "-c", program]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert pid != process.pid
        process.send_signal(number)
        assert process.stdout.read() == ""  # it holds the other end until it has ended
        assert process.wait(30) == -number
