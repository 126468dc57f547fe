"""The doorbell: Celery over Redis, every decision about it made once.

A task carries an id and nothing else; the row is the truth. So messages are acknowledged early (Redis may drop while a
task runs, and late acknowledgement crashes Celery 5.7 then), there is no result backend, no ETA, no beat, and a ring
that Redis does not take is simply lost: the sweep finds the row. Used by `service.wiring`; the worker's tasks hang on
the app in `service.worker.tasks`.
"""

import contextlib
import queue
import threading
from collections.abc import Callable

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from service import metrics
from service.log import logger
from service.settings import BrokerSettings

CLOSING = 5.0  #: seconds that the rings still queued may take at the end
BACKLOG = 10_000  #: rings that may wait for the broker; more are lost, and found by the sweep


def celery_app(settings: BrokerSettings) -> Celery:
    """The Celery app, named as the distribution."""
    url = settings.url.get_secret_value() if settings.url else None
    app = Celery("kfp-triggers", broker=url)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_default_queue=settings.queue,
        task_acks_late=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # 5 s and not None: with it a worker recovers from a black hole, without it it is deaf for ever.
            "socket_timeout": 5,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "visibility_timeout": 3600,
        },
    )
    return app


class CeleryBell:
    """Rings through Redis from a thread of its own: neither a request nor a transaction ever waits for the broker."""

    def __init__(self, app: Celery) -> None:
        # Kombu would try a refused connection again for some seconds: a ring is lost at once, and the next one tries.
        app.conf.broker_transport_options = {**app.conf.broker_transport_options, "max_retries": 0}
        self._app, self._up = app, True
        self._queue: queue.Queue[tuple[str, str] | None] = queue.Queue(maxsize=BACKLOG)
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
        self._thread.start()

    def ring(self, task: str, key: str) -> None:
        """Leave it to the thread."""
        try:
            self._queue.put_nowait((task, key))
        except queue.Full:
            metrics.rings_lost.inc()

    def waiting(self) -> int:
        """Those in Redis are asked for only while it takes rings: who asks must not wait for one that is away."""
        unsent = self._queue.qsize()
        if not self._up:
            return unsent
        try:
            with self._app.connection_for_read() as connection:
                return unsent + int(connection.default_channel.client.llen(self._app.conf.task_default_queue))
        except Exception:  # noqa: BLE001  # whatever it is: the next ring says what is wrong
            return unsent

    def close(self) -> None:
        """Send what is queued, if the broker takes it within a few seconds."""
        with contextlib.suppress(queue.Full):  # then the broker is away, and the thread ends with the process
            self._queue.put(None, timeout=1)
            self._thread.join(timeout=CLOSING)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._app.send_task(item[0], args=[item[1]], retry=False)
            except (KombuError, RedisError, OSError) as error:
                metrics.rings_lost.inc()
                if self._up:
                    logger.warning("broker_away", error=type(error).__name__)
                self._up = False
            except Exception:
                # Whatever it is, a thread that ended would be a doorbell that is dead for good.
                metrics.rings_lost.inc()
                logger.exception("ring_failed")
            else:
                if not self._up:
                    logger.info("broker_back")
                self._up = True
            metrics.broker_up.set(self._up)


class InlineBell:
    """No broker: a few threads of this process do the work that the ring asks for."""

    def __init__(self, steps: Callable[[str, str], None], threads: int) -> None:
        self._steps = steps
        self._queue: queue.Queue[tuple[str, str] | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._run, name=f"bell-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def ring(self, task: str, key: str) -> None:
        """Leave it to the threads."""
        self._queue.put((task, key))

    def waiting(self) -> int:
        """Those that no thread has begun."""
        return self._queue.qsize()

    def close(self) -> None:
        """Finish what was rung."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=10)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._steps(*item)
            except Exception:
                logger.exception("step_failed", step=item[0], key=item[1])


class NoBell:
    """For commands that only look, or whose work the sweep of a running service takes up."""

    def ring(self, task: str, key: str) -> None:
        """Nobody hears it."""

    def waiting(self) -> int:
        """None is kept."""
        return 0
