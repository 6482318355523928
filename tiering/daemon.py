"""The daemon: carries records to PostgreSQL all the time, keeps its partitions in order, and says how it goes.

Its jobs fail one by one: a store that is down costs a line in the log and a longer wait, never the process. Any number
of daemons may run beside each other: a flush leaves out the shards that another holds.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from banshee_memory.cold import reads
from banshee_memory.cold.client import SWEPT_AT_ONCE, ColdStore
from banshee_memory.errors import BansheeError
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import ShardKeys, shard_keys
from banshee_memory.records import FlushReport
from banshee_memory.settings import Settings
from banshee_memory.stamps import from_us, to_us
from banshee_memory.tiering.drain import Drain
from banshee_memory.tiering.pace import Meter, enforce_limit
from banshee_memory.tiering.report import backlog, sight
from banshee_memory.tiering.watch import OBSERVE_EVERY, JobWatch, Watch

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

_MAINTAIN_EVERY = 3_600.0
_INDEX_EVERY = 6 * 3_600.0
_REPORT_EVERY = 60.0
_LONGEST_WAIT = 30.0
_MUCH = 1_000
_RECOVERIES = 10
_RECOVERIES_KEPT = 1_000
_BEFORE_BEGINNING = timedelta(seconds=10)
"""What is found as the daemon connects is told, also by a clock of PostgreSQL's that is a little behind."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def logger(stream: TextIO | None = None) -> Any:
    """A structured log: lines for people on a terminal, JSON elsewhere."""
    import structlog

    stream = stream or sys.stderr
    draw: Any = structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer()
    processors = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        draw,
    ]
    return structlog.wrap_logger(structlog.PrintLogger(stream), processors=processors)


class Job:
    """Work that is done again and again. When it failed it is done sooner or later than usual: after a second, then
    after twice as long each time, up to half a minute."""

    def __init__(self, name: str, work: Callable[[], None], log: Any, watch: JobWatch) -> None:
        self.name = name
        self._work = work
        self._log = log
        self._watch = watch
        self._failures = 0
        self._at_work = threading.Lock()
        self._ended = False

    def __call__(self) -> float | None:
        """Does the work. Gives the seconds to wait before it is tried again; None: as scheduled."""
        with self._at_work:
            return None if self._ended else self._done()

    def end(self) -> None:
        """Waits until the work is done; from then on it is not begun again."""
        with self._at_work:
            self._ended = True

    def _done(self) -> float | None:
        self._watch.begun()
        try:
            self._work()
        except BansheeError as exc:
            self._watch.failed(exc)
            return self._put_off(error=type(exc).__name__, why=_in_a_line(exc))
        except Exception as exc:  # noqa: BLE001 - a defect in one job must not end the others
            self._watch.failed(exc)
            return self._put_off(error=type(exc).__name__, at=_where(exc))
        self._watch.ended()
        if self._failures:
            self._log.info("job works again", job=self.name, failures=self._failures)
        self._failures = 0
        return None

    def _put_off(self, **why: Any) -> float:
        wait: float = min(2.0 ** min(self._failures, 10), _LONGEST_WAIT)
        self._failures += 1
        self._log.warning("job put off", job=self.name, again_in=wait, **why)
        return wait


def _where(exc: BaseException) -> list[str]:
    """The way to an error, without its message: what is in that, nobody knows."""
    frames = traceback.extract_tb(exc.__traceback__)
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def _in_a_line(exc: BansheeError) -> str:
    return " ".join(str(exc).split())


class Daemon:
    """The jobs over two stores. `watch` is told how they go."""

    def __init__(
        self,
        settings: Settings,
        hot: HotStore,
        cold: ColdStore,
        log: Any,
        *,
        rehydrate_wanted: Callable[[], int],
        watch: Watch | None = None,
    ) -> None:
        self._settings = settings
        self._hot = hot
        self._cold = cold
        self._log = log
        self._drain = Drain(settings, hot, cold)
        self._rehydrate_wanted = rehydrate_wanted
        self._watch = watch or Watch(settings)
        self._stop = threading.Event()
        self._meter = Meter(settings, hot)
        self._told = datetime.now(UTC) - _BEFORE_BEGINNING

    def run(self) -> bool:
        """Works until SIGTERM or SIGINT (or `stop`), then carries the rest. False: some of it is left."""
        self._log.info("started", shards=self._settings.shards, flush_after=self._settings.flush_after)
        work = {
            "flush": (self.flush, self._settings.flush_after),
            "rehydrate": (self.rehydrate, self._settings.flush_after),
            "maintain": (self.maintain, _MAINTAIN_EVERY),
            "index": (self.index, _INDEX_EVERY),
            "limit": (self.limit, _MAINTAIN_EVERY),
            "report": (self.report, _REPORT_EVERY),
            "observe_redis": (self.observe_redis, OBSERVE_EVERY),
            "observe_postgres": (self.observe_postgres, OBSERVE_EVERY),
        }
        jobs = {Job(name, do, self._log, self._watch.job(name, every)): every for name, (do, every) in work.items()}
        scheduler = self._scheduler(jobs)
        with self._stopped_by_signals():
            try:
                scheduler.start()
                self._stop.wait()
                self._watch.stopping = True
                self._log.info("stopping")
                # Not with wait=True: then it holds a lock that a job which is put off meanwhile asks for.
                scheduler.shutdown(wait=False)
                for job in jobs:
                    job.end()
                return self._carried_the_rest()
            except KeyboardInterrupt:
                self._log.error("stopped by a second signal", **self._left())
                return False
            finally:
                if scheduler.running:
                    scheduler.shutdown(wait=False)

    def stop(self) -> None:
        """Makes `run` return."""
        self._stop.set()

    # --- jobs ---

    def flush(self) -> None:
        """Carries what waits; again at once while much is left."""
        while not self._stop.is_set():
            report = self._drain.sweep()
            self._watch.carried(report, self._drain.held, self._drain.waited)
            if report.poisoned:
                self._log.warning("dead letters", count=report.poisoned)
            if report.conflicts:
                self._log.warning("older than what PostgreSQL has, so dropped", count=report.conflicts)
            if not _carried(report) or backlog(self._settings, self._hot).records < _MUCH:
                return

    def rehydrate(self) -> None:
        """Brings in the agents that foreign clients missed and asked for."""
        agents = self._rehydrate_wanted()
        self._watch.rehydrated += agents
        if agents:
            self._log.info("rehydrated", agents=agents)

    def maintain(self) -> None:
        """Creates partitions ahead of need, and forgets what is over: old partitions, memories, idempotency keys."""
        now = from_us(self._hot.run(calls.now()))
        created = self._cold.prepare_partitions(now)
        dropped = self._cold.drop_expired(now)
        memories = self._sweep(lambda: self._cold.sweep_memories(now))
        hours = self._sweep(lambda: self._cold.compact_rollups(now))
        self._cold.sweep_recoveries(_RECOVERIES_KEPT)
        swept = sum(self._sweep_idempotency(shard_keys(shard)) for shard in range(self._settings.shards))
        oldest = max(int(to_us(now) - self._settings.idempotency_window * 1e6), 0) // 1_000 << 16
        replies = sum(self._sweep_replies(shard, oldest) for shard in range(self._settings.shards))
        self._log.info(
            "maintained",
            partitions_created=created,
            partitions_dropped=dropped,
            memories_swept=memories,
            rollups_compacted=hours,
            idempotency_keys_swept=swept,
            idempotency_rows_swept=replies,
        )

    def _sweep(self, some: Callable[[], int]) -> int:
        total = 0
        while not self._stop.is_set():
            swept = some()
            total += swept
            if swept < SWEPT_AT_ONCE:
                break
        return total

    def _sweep_idempotency(self, keys: ShardKeys) -> int:
        cursor, total = b"0", 0
        while not self._stop.is_set():
            cursor, swept = self._hot.run(calls.sweep_idempotency(keys, self._settings.idempotency_window, cursor))
            failpoint("sweep.idempotency_swept")
            total += swept
            if cursor == b"0":
                break
        return total

    def index(self) -> None:
        """Builds what lets searches in closed partitions find words by an index; a stop of the daemon cuts it off."""
        now = from_us(self._hot.run(calls.now()))
        for step in self._cold.index_words(now, self._stop):
            if job := self._watch.jobs.get("index"):
                job.moved()
            self._log.info("indexed", done=step)

    def limit(self) -> None:
        """Holds every client to the limit of these settings: whoever loaded the library may have had others."""
        before = enforce_limit(self._settings, self._hot)
        if before is not None:
            self._log.info(
                "backlog limit loaded", of_a_shard=self._settings.shard_backlog or None, before=before or None
            )

    def _sweep_replies(self, shard: int, before: int) -> int:
        total = 0
        while not self._stop.is_set():
            swept = self._cold.sweep_replies(shard, before)
            failpoint("sweep.replies_swept")
            total += swept
            if swept < SWEPT_AT_ONCE:
                break
        return total

    def report(self) -> None:
        """Says how much is only in Redis, and how fast that changes."""
        self._meter.measure()
        gone_back = self._drain.gone_back()
        if gone_back:
            self._drain.flush_shards(gone_back)
        self._log.info("backlog", **self._backlog())

    def observe_redis(self) -> None:
        """Looks at Redis. One that is away is what is seen, and no failing of the job; the others tell the log."""
        if self._watch.is_dear():
            return
        redis = self._watch.stores["redis"]
        began = time.monotonic()
        try:
            seen = sight(self._settings, self._hot)
        except BansheeError as exc:
            redis.failed(exc)
        else:
            self._watch.saw(seen, time.monotonic() - began)

    def observe_postgres(self) -> None:
        """Looks at PostgreSQL, and whether its schema is still this version's."""
        postgres = self._watch.stores["postgres"]
        try:
            self._cold.check_schema()
            postgres.answered(self._cold.ping().seconds)
            self._tell_recoveries()
        except BansheeError as exc:
            postgres.failed(exc)

    def _tell_recoveries(self) -> None:
        """Says once what befell the stores since this daemon began, whoever found it."""
        latest = self._cold.fetch(reads.recoveries(_RECOVERIES))
        for found in reversed(latest):
            if found.found_at > self._told:
                self._told = found.found_at
                tell = self._log.info if found.behind_seconds == 0 else self._log.warning
                tell("recovered", store=found.store, behind_seconds=found.behind_seconds, said=found.said)

    def _backlog(self) -> dict[str, Any]:
        waiting = backlog(self._settings, self._hot)
        said: dict[str, Any] = {"records": waiting.records, "bytes": waiting.bytes, "oldest_age": waiting.oldest_age}
        if waiting.limit is not None:
            said |= {"limit": waiting.limit, "fullest": round(waiting.fullest, 4)}
        if waiting.pace is not None:
            said |= {"in": round(waiting.pace.records_in, 1), "out": round(waiting.pace.records_out, 1)}
            said["full_at"] = waiting.pace.full_at and waiting.pace.full_at.isoformat()
        return said

    # --- the schedule ---

    def _scheduler(self, jobs: Mapping[Job, float]) -> BackgroundScheduler:
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.schedulers.background import BackgroundScheduler
        from apscheduler.triggers.interval import IntervalTrigger

        # It warns of each run that is left out because the one before is still at work; here that is meant.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(len(jobs))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for job, every in jobs.items():
            scheduler.add_job(
                partial(_do, scheduler, job),
                IntervalTrigger(seconds=every, jitter=every / 10, timezone=UTC),
                id=job.name,
                next_run_time=datetime.now(UTC),
            )
        return scheduler

    # --- the end ---

    def _carried_the_rest(self) -> bool:
        try:
            report = self._drain.flush()
        except BansheeError as exc:
            self._log.error("stopped with records left in Redis", why=_in_a_line(exc), **self._left())
            return False
        self._log.info("stopped", records=report.records, seconds=round(report.seconds, 3))
        return True

    def _left(self) -> dict[str, Any]:
        try:
            return self._backlog()
        except BansheeError as exc:
            return {"left": f"unknown: {_in_a_line(exc)}"}

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """The first signal ends the schedule, the second one also the flush after it."""
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()


def _do(scheduler: BackgroundScheduler, job: Job) -> None:
    from apscheduler.jobstores.base import JobLookupError

    wait = job()
    if wait is not None:
        with suppress(JobLookupError):  # the schedule has ended meanwhile
            scheduler.modify_job(job.name, next_run_time=datetime.now(UTC) + timedelta(seconds=wait))


def _carried(report: FlushReport) -> int:
    dropped = report.expired + report.forgotten + report.poisoned
    return report.records + report.duplicates + report.conflicts + dropped
