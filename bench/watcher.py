"""The service in a process of its own, so that what it costs is its own: an App with its duties, as a worker has them.

Run by `openruns` with a home; for each line of JSON on its standard input it answers one: `{"key": …}` tells it of a
new object, `{}` asks what it has used so far.
"""

import json
import os
import sys
import time
from pathlib import Path

import besides  # noqa: F401 - for what importing it does
from kfpworld import drop

from service.duties import Duties
from service.log import set_up
from service.settings import LogSettings, load
from service.wiring import opened

PAGE = os.sysconf("SC_PAGE_SIZE")


def used() -> dict[str, float]:
    """CPU seconds of all threads, and MiB in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"cpu": time.process_time(), "rss": pages * PAGE / (1 << 20)}


def main() -> None:
    """Until standard input ends."""
    set_up(LogSettings(level="error"))
    with opened(load(Path(sys.argv[1]))) as app:
        duties = Duties(app, app.pace)
        print(json.dumps(used()), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            answer = {"event": drop(app, asked["key"])} if "key" in asked else used()
            print(json.dumps(answer), flush=True)
        duties.close()


if __name__ == "__main__":
    main()
