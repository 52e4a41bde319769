"""Processes of `hfc` without the seconds that Python takes to import PyTorch.

A server imports modules once. Then it forks itself for every request: a process of its own, with its own arguments,
folder, environment, streams and signals. Tests use it where it matters that `hfc` is another process. Where the start
of Python itself is tested, its variables, its limits or its rights, they start Python. So they do everywhere but on
Linux, whose process descriptors this rests on.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
STAGES = (
    *("cli.main", "cli.extract", "cli.predict", "cli.train"),
    *("hfc.extract.stage", "hfc.train.stage", "hfc.predict.classifier", "hfc.report"),
)

# Stands for the process: takes its arguments, sends it on what signals it gets, and ends as it ends. Without PyTorch,
# and without Python's `site`, it starts in a few hundredths of a second.
CLIENT = """
import json, os, signal, sys
streams = [number for number in (0, 1, 2) if os.path.exists(f"/proc/self/fd/{number}")]
import socket
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
request = {"words": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ), "streams": streams}
socket.send_fds(server, [json.dumps(request).encode() + b"\\n"], streams)
answers = server.makefile()
pid = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -signal.SIGKILL else None
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def python(*modules: str) -> list[str]:
    """The words of a command that does what Python does with `-m MODULE …` or `-c CODE …`.

    Args:
        modules: what is imported before the first of these processes, STAGES if none are given. Several tests should
            name the same.
    """
    if sys.platform != "linux":
        return ["env", f"PYTHONPATH={ROOT}", sys.executable]
    return [sys.executable, "-I", "-S", "-c", CLIENT, str(_server(modules or STAGES))]


@cache
def _server(modules: tuple[str, ...]) -> Path:
    """The socket of a server that has imported these modules; it ends with this process."""
    folder = tempfile.TemporaryDirectory(prefix="hfc-")
    place = Path(folder.name) / "s"
    words = [sys.executable, "-m", "tests.support.processes", str(place), *modules]
    process = subprocess.Popen(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE)

    def end() -> None:
        process.kill()
        process.wait()
        folder.cleanup()

    atexit.register(end)
    while not place.exists():
        assert process.poll() is None, "the server of processes did not start"
        time.sleep(0.01)
    return place


def serve(place: Path) -> list[str]:
    """Fork for every request; only in the process of a request it returns, with the words for Python."""
    listening = socket.socket(socket.AF_UNIX)
    unready = place.with_suffix(".new")
    listening.bind(str(unready))
    listening.listen(64)
    unready.rename(place)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while True:
        ready, _, _ = select.select([listening, 0], [], [])
        if listening not in ready:
            sys.exit()  # stdin ends: the tests have ended, perhaps killed
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _keep(connection)
        connection.close()


def _keep(connection: socket.socket) -> list[str]:
    """Start the process, send its number and its exit code, and kill it if the client is killed."""
    data, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 20)
    request = json.loads(data)
    pid = os.fork()
    if pid == 0:
        connection.close()
        for number in (0, 1, 2):
            os.close(number)
        for number, file in zip(request["streams"], files, strict=True):
            os.dup2(file, number)
            os.close(file)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        return list(request["words"])
    for file in (*files, 0, 1, 2):  # whoever reads them waits for the process alone
        os.close(file)
    process = os.pidfd_open(pid)
    connection.sendall(f"{pid}\n".encode())
    ended, _, _ = select.select([process, connection], [], [])
    if process not in ended:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if process in ended:
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def stream(number: int, mode: str, encoding: str, errors: str) -> Any:
    """What Python makes of a file that it is given when it starts: None if it is closed."""
    try:
        os.fstat(number)
    except OSError:
        return None
    return open(number, mode, 1 if number == 2 else -1, encoding, errors or "strict")


def execute(words: list[str]) -> NoReturn:
    """Do what Python does with its words, and end as Python ends."""
    kind, program, *rest = words
    sys.argv = [kind, *rest]
    sys.path[0] = ""  # the folder of the process, as Python has it
    tempfile.tempdir = None  # looked for again, in the environment of the process
    # The server's own streams know what the server's files were.
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    sys.stdin, sys.stdout = stream(0, "r", encoding, errors), stream(1, "w", encoding, errors)
    sys.stderr = stream(2, "w", encoding, "backslashreplace")
    code: object = None
    try:
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        code = 120
    os._exit(code or 0)  # to free all modules one by one would take longer than most of these processes


if __name__ == "__main__":
    for module in sys.argv[2:]:
        import_module(module)
    gc.freeze()  # else a collection would write to, and so copy, all that the processes share
    execute(serve(Path(sys.argv[1])))
