"""A wire to PostgreSQL that breaks at a COMMIT: for tests of a commit of which nobody hears."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Cutting:
    """It breaks once: before the server hears of the commit, or before we hear of it. Only that connection is gone."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._sockets[0].getsockname()[1]
        self.cut = ""  #: "before" or "after" the server commits; empty again when it is cut
        self.word = b""  #: only a transaction that tells the server this
        self.spared = 0  #: so many such transactions pass first
        self._threads: list[threading.Thread] = []
        self._begin(self._serve, self._sockets[0])

    def _begin(self, do: Callable[..., None], *wire: object) -> None:
        self._threads.append(threading.Thread(target=do, args=wire))
        self._threads[-1].start()

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client = listener.accept()[0]
                try:
                    server = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, server]
                broken = threading.Event()
                self._begin(self._answers, client, server, broken)
                self._begin(self._questions, client, server, broken)

    def _answers(self, client: socket.socket, server: socket.socket, broken: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(65536)) and not broken.is_set():
                client.sendall(data)
        self._end(client, server)

    def _questions(self, client: socket.socket, server: socket.socket, broken: threading.Event) -> None:
        told = b""
        with suppress(OSError):
            while data := client.recv(65536):
                told += data
                if b"COMMIT\x00" in data:
                    if self._meant(told):
                        how, self.cut = self.cut, ""
                        if how == "before":
                            break
                        broken.set()
                    told = b""
                server.sendall(data)
        self._end(client, server)

    def _meant(self, told: bytes) -> bool:
        if not self.cut or self.word not in told:
            return False
        self.spared -= 1
        return self.spared < 0

    def _end(self, *wire: socket.socket) -> None:
        for one in wire:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._end(*self._sockets)
        for thread in self._threads:
            thread.join(10)
        for one in self._sockets:
            one.close()
