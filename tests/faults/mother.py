"""Real processes of the service in a tenth of a second: `python mother.py`, orders on stdin, answers on stdout.

Imports everything once and forks for each `{"argv", "env", "log", "limits"}` a process that runs that very command
line. Killed children are reaped here: `{"wait": pid}` answers with how it ended. All of them end with the mother.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from typing import Any

import kfp  # noqa: F401 - so that no child has to; the same below
import mlflow.tracking.request_header.registry  # noqa: F401

import service.cli
import service.kubeflow
import service.web.server
import service.wiring
import service.worker.tasks

PR_SET_PDEATHSIG, PR_SET_PTRACER = 1, 0x59616D61


def main() -> None:
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer = waited(order["wait"], order["seconds"]) if "wait" in order else born(order)
        print(json.dumps(answer), flush=True)


def born(order: dict[str, Any]) -> int:
    """The pid of a child that is `kfp-triggers argv`."""
    child = os.fork()
    if child:
        return child
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_PTRACER, ctypes.c_ulong(-1))  # strace may attach, also where only parents may
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for theirs, ours in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(theirs, ours)
    os.environ.update(order["env"])
    for name, limit in order["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    sys.argv = ["kfp-triggers", *order["argv"]]
    status = 1
    try:
        service.cli.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except Exception:  # noqa: BLE001 - whatever it is, it must not run on as a second mother
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    os._exit(status)


def waited(child: int, seconds: float) -> int | None:
    """How the child ended, a signal's number being negative; None when it lives on."""
    until = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


if __name__ == "__main__":
    main()
