"""A disk that loses power, rebuilt from strace's log: what was synced is there, of the rest whatever the drive likes.

SQLite's files are replayed write by write; what an fsync that returned covers is kept, and each later write is lost or
not by chance. Used by the row F3.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults.tracing import Call

WRITE = re.compile(r'^\d+<[^>]+>, "(?P<data>(?:\\x[0-9a-f]{2})*)", \d+, (?P<offset>\d+)')
SENT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass
class File:
    """One file: what is on the disk, and what only the kernel has."""

    synced: bytearray
    pending: list[tuple[int, bytes]] = field(default_factory=list)

    def sync(self, upto: int) -> None:
        """So many of the oldest writes are on the disk."""
        for offset, data in self.pending[:upto]:
            _put(self.synced, offset, data)
        del self.pending[:upto]

    def after_loss(self, chance: random.Random) -> bytes:
        """Of what was not synced each write is there or not, in the order of the writes."""
        left = bytearray(self.synced)
        for offset, data in self.pending:
            if chance.random() < 0.5:
                _put(left, offset, data)
        return bytes(left)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(b"\0" * (offset + len(data) - len(content)))
    content[offset : offset + len(data)] = data


def plain(text: str) -> bytes:
    r"""What strace -xx prints as \x.., or as it is."""
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


def losses(
    found: Sequence[Call], before: dict[str, bytes], chance: random.Random
) -> Iterator[tuple[set[str], dict[str, bytes]]]:
    """A loss of power right after each answer: the ids acknowledged until then, and the files that are left."""
    files = {path: File(bytearray(content)) for path, content in before.items()}
    begun: dict[tuple[str, str], int] = {}
    acknowledged: set[str] = set()
    for call in found:
        path = plain(call.file.partition("<")[2]).decode()
        if call.name == "pwrite64" and path in files and call.begins:
            write = WRITE.match(call.told)
            assert write, call.told[-200:]
            files[path].pending.append((int(write["offset"]), plain(write["data"])))
        elif call.name in {"fsync", "fdatasync"} and path in files:
            if call.begins:
                begun[call.thread, path] = len(files[path].pending)
            if call.ends:
                files[path].sync(begun.pop((call.thread, path)))
                for other in [key for key in begun if key[1] == path]:
                    begun[other] = min(begun[other], len(files[path].pending))
        elif call.name in {"write", "writev", "sendto"} and call.begins:
            said = b"".join(plain(piece) for piece in SENT.findall(call.told))
            if answer := re.search(rb'\{"id":"([0-9A-Z]{26})"', said):
                acknowledged.add(answer[1].decode())
                yield set(acknowledged), {path: file.after_loss(chance) for path, file in files.items()}


def placed(folder: Path, files: dict[str, bytes]) -> Path:
    """The files as they are found after the loss, without the shared memory, which no disk has; the database."""
    folder.mkdir(parents=True)
    for path, content in files.items():
        (folder / Path(path).name).write_bytes(content)
    return folder / next(Path(path).name for path in files if not path.endswith("-wal"))
