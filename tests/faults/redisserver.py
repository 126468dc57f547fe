"""A real redis-server that a test may kill, stop and empty. Ended by pid."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from faults.stage import free_port, until

from service import parts


class Redis:
    """One server on a port of its own; what it has is in memory alone, unless `keep` says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        argv = [str(parts.find("redis-server")), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        argv += ["--dir", str(self.folder)]
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self.says("PING") == b"+PONG", what="Redis answers")

    def says(self, *words: str) -> bytes:
        """The first line of its answer to a command; nothing when it does not answer."""
        command = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as one:
                one.sendall(command.encode())
                return one.recv(4096).partition(b"\r\n")[0]
        except OSError:
            return b""

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP makes a black hole of it: it takes connections, and never answers."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """As kill -9 does; nothing of what it had is left."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait(timeout=10)
            self._process = None
