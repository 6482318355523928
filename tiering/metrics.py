"""The daemon's metrics, in the text format of Prometheus. Imports its client: the extra `metrics`.

Every metric is listed in docs/runbook.md with what to do when it is not as it should be. None has a label whose values
are without number: no agent, no message, no text of an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from banshee_memory.tiering.watch import HotSight, Watch

KIND = CONTENT_TYPE_LATEST


def exposition(watch: Watch) -> Callable[[], bytes]:
    """What gives the metrics of that moment."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Watched(watch))
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)


class _Watched(Collector):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        watch = self._watch
        yield from _jobs(watch)
        yield from _stores(watch)
        yield from _flushes(watch)
        if watch.hot is not None:
            yield from _hot(watch.hot)


def _jobs(watch: Watch) -> Iterator[Metric]:
    jobs = list(watch.jobs.values())
    yield _gauges(
        "banshee_job_healthy",
        "1 unless the job has been silent, overdue or failing for too long.",
        "job",
        ((job.name, job.broken() is None) for job in jobs),
    )
    yield _counters("banshee_job_runs", "Runs of a job.", "job", ((job.name, job.runs) for job in jobs))
    failures = CounterMetricFamily(
        "banshee_job_failures", "Runs that failed, by the error; each was tried again.", labels=("job", "error")
    )
    for job in jobs:
        for error, count in dict(job.failures).items():
            failures.add_metric((job.name, error), count)
    yield failures
    yield _gauges(
        "banshee_job_failures_in_a_row",
        "Failures since the job last succeeded.",
        "job",
        ((job.name, job.in_a_row) for job in jobs),
    )
    yield _gauges(
        "banshee_job_last_success_timestamp_seconds",
        "When the job last succeeded.",
        "job",
        ((job.name, time.time() - watch.age(job.ended_well_at)) for job in jobs if job.ended_well_at is not None),
    )


def _stores(watch: Watch) -> Iterator[Metric]:
    stores = list(watch.stores.items())
    yield _gauges(
        "banshee_store_up",
        "1 if the store answered when it was asked last, a few seconds ago, and is as it must be.",
        "store",
        ((name, store.is_up(watch.store_patience)) for name, store in stores),
    )
    answered = [(name, store) for name, store in stores if store.answered_at is not None]
    yield _gauges(
        "banshee_store_last_answer_timestamp_seconds",
        "When the store last answered: what is told of Redis is as of then.",
        "store",
        ((name, time.time() - watch.age(store.answered_at or 0.0)) for name, store in answered),
    )
    yield _gauges(
        "banshee_store_latency_seconds",
        "A round trip to the store.",
        "store",
        ((name, store.latency) for name, store in answered),
    )


def _flushes(watch: Watch) -> Iterator[Metric]:
    yield _counters("banshee_flushed_records", "Records that reached PostgreSQL.", "kind", watch.kinds())
    flushed = watch.flushed
    duplicates = "Records that were in PostgreSQL already, from a flush that died before it could clean up."
    yield CounterMetricFamily("banshee_flush_duplicates", duplicates, flushed.duplicates)
    conflicts = "Values that PostgreSQL had a newer one of: a failover, or a Redis that came from an old file."
    yield CounterMetricFamily("banshee_flush_conflicts", conflicts, flushed.conflicts)
    yield CounterMetricFamily("banshee_flush_expired", "Records beyond retention, dropped.", flushed.expired)
    yield CounterMetricFamily("banshee_flush_poisoned", "Records moved to the dead letters.", flushed.poisoned)
    yield SummaryMetricFamily("banshee_flush_duration_seconds", "Flushes.", watch.flushes, flushed.seconds)
    yield GaugeMetricFamily("banshee_shards_waiting", "Shards with something to flush, then.", watch.shards_waiting)
    yield GaugeMetricFamily("banshee_shards_held", "Those of them that this daemon held.", watch.shards_held)
    yield CounterMetricFamily("banshee_rehydrated_agents", "Agents that foreign clients wanted.", watch.rehydrated)


def _hot(sight: HotSight) -> Iterator[Metric]:
    backlog = sight.backlog
    gauges: dict[str, tuple[str, float]] = {
        "banshee_backlog_records": ("Records that are only in Redis.", backlog.records),
        "banshee_backlog_limit_records": ("At how many records writes are refused; 0: never.", backlog.limit or 0),
        "banshee_backlog_fullest_ratio": ("Of its share, what the fullest shard has used.", backlog.fullest),
        "banshee_backlog_bytes": ("Their size in Redis, estimated.", backlog.bytes),
        "banshee_backlog_oldest_age_seconds": ("Age of the one that waits longest; 0: none.", backlog.oldest_age or 0),
        "banshee_dead_letters": ("Records that PostgreSQL could not take.", sight.dead_letters),
        "banshee_redis_memory_used_bytes": ("Memory of Redis.", sight.used_memory),
        "banshee_redis_memory_max_bytes": ("Its maxmemory; 0: no limit.", sight.max_memory),
    }
    if backlog.pace is not None:
        gauges["banshee_pace_in_records"] = ("Records written to Redis, a second.", backlog.pace.records_in)
        gauges["banshee_pace_out_records"] = ("Records flushed, a second.", backlog.pace.records_out)
        if backlog.pace.full_at is not None:
            full_at = backlog.pace.full_at.timestamp()
            gauges["banshee_backlog_full_timestamp_seconds"] = ("When a shard is full at this pace.", full_at)
    for name, (said, value) in gauges.items():
        yield GaugeMetricFamily(name, said, value)
    yield CounterMetricFamily("banshee_redis_evicted_keys", "Keys that Redis let go of.", sight.evicted_keys)


def _gauges(name: str, said: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, said, labels=(label,))
    for which, value in values:
        family.add_metric((which,), float(value))
    return family


def _counters(name: str, said: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = CounterMetricFamily(name, said, labels=(label,))
    for which, value in values:
        family.add_metric((which,), float(value))
    return family
