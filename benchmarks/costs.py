"""What S3 asks for a user and a day: requests, bytes, storage, at stated prices, for 1 to 100,000 users."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from benchmarks import day
from benchmarks.bed import BUCKET, Bed, table
from benchmarks.day import HOURS, KIB, MIB, Mode, Profile, Spent
from sidecar.settings import Settings
from tests.servers import client

# S3 Standard, us-east-1, in dollars, as stated on this day: https://aws.amazon.com/s3/pricing/
PRICED_ON = "2026-11-22"
PUT_DOLLARS = 0.005 / 1000
GET_DOLLARS = 0.0004 / 1000
GB_MONTH_DOLLARS = 0.023
DAYS = 30  # of a month that somebody works on
KEPT_VERSIONS_DAYS = 30  # k8s/bucket-lifecycle.json
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html, for each prefix
PUT_LIMIT, GET_LIMIT = 3500, 5500

LIKE_PUT, LIKE_GET, FREE = ("put", "part", "other", "list"), ("get", "head"), ("delete",)
PROFILES = (Profile("light", 20, 1), Profile("typical", 100, 2), Profile("heavy", 400, 4))
JOURNAL, RARER, INTERVALS = (
    Mode("journal, 2 s", 2.0),
    Mode("journal, 30 s", 30.0),
    Mode("intervals only", None),
)
MODES = (JOURNAL, RARER, INTERVALS)
USERS = (1, 10, 100, 1_000, 10_000, 100_000)
SEED = 20261122


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a smoke test: a short day of a small home")
    parser.add_argument("--seed", type=int, default=SEED, help=f"what the days are drawn from [{SEED}]")


def run(options: argparse.Namespace) -> int:
    profiles = (Profile("typical", 4, 2),) if options.quick else PROFILES
    transcripts, size, files = (2, 64 * KIB, 10) if options.quick else (30, MIB, 150)
    print(f"Prices: S3 Standard, us-east-1, as stated on {PRICED_ON}; seed {options.seed}.")
    days: dict[tuple[str, str], tuple[Spent, int]] = {}
    with Bed() as bed:
        pods = _Pods(bed)
        origin = next(pods)
        day.history(Path(origin.home), transcripts, size, files)
        once = [("first backup", day.first_backup(origin)), ("one restore", day.start(next(pods)))]
        once.append((f"{HOURS} idle hours", day.idle(origin, HOURS * 12)))
        held = sum(file.stat().st_size for file in Path(origin.home).rglob("*") if file.is_file())
        _requests(f"Once, {transcripts} transcripts and {files} small files, {held / 1e6:.0f} MB", once)
        for profile in profiles:
            for mode in MODES:
                users_pods = _Pods(bed)
                origin = next(users_pods)
                day.history(Path(origin.home), transcripts, size, files)
                day.first_backup(origin)
                spent = day.work(lambda pods=users_pods: next(pods), profile, mode, options.seed)
                days[profile.name, mode.name] = spent, _stored(bed, origin)
    names = [
        (f"{p.name} ({p.turns} turns, {p.pods} pods), {m.name}", p.name, m.name)
        for p in profiles
        for m in MODES
    ]
    _requests("A user's day", [(title, days[profile, mode][0]) for title, profile, mode in names])
    _storage([(title, *days[profile, mode]) for title, profile, mode in names])
    _scale(days["typical", JOURNAL.name], days["typical", INTERVALS.name])
    return 0


class _Pods(Iterator[Settings]):
    """New pods of one new user: the settings of each, with a disk of its own."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._user = f"user-{uuid.uuid4().hex[:8]}"

    def __next__(self) -> Settings:
        return replace(self._bed.place(user=self._user).settings, log_level="ERROR")


def dollars(spent: Spent) -> float:
    """What the requests of `spent` cost; removing is free."""
    assert set(spent.flows) <= {*LIKE_PUT, *LIKE_GET, *FREE}, spent.flows
    return spent.requests(*LIKE_PUT) * PUT_DOLLARS + spent.requests(*LIKE_GET) * GET_DOLLARS


def _stored(bed: Bed, settings: Settings) -> int:
    """Bytes under the user's prefix."""
    outside = client(bed.server)
    pages = outside.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix=f"{settings.prefix}/{settings.user_id}/"
    )
    total = sum(entry["Size"] for page in pages for entry in page.get("Contents", []))
    outside.close()
    return total


def _requests(title: str, rows: list[tuple[str, Spent]]) -> None:
    columns = ("what", "PUT, POST", "LIST", "GET", "HEAD", "DELETE", "MB sent", "MB received", "requests, $")
    table(
        title,
        columns,
        [
            (
                name,
                f"{spent.requests('put', 'part', 'other'):,}",
                f"{spent.requests('list'):,}",
                f"{spent.requests('get'):,}",
                f"{spent.requests('head'):,}",
                f"{spent.requests('delete'):,}",
                f"{spent.sent_bytes / 1e6:.1f}",
                f"{spent.received_bytes / 1e6:.1f}",
                f"{dollars(spent):.5f}",
            )
            for name, spent in rows
        ],
    )


def _storage(rows: list[tuple[str, Spent, int]]) -> None:
    columns = (
        "a user's storage",
        "MB after the day",
        "$ a month",
        f"MB with {KEPT_VERSIONS_DAYS} days of versions",
        "$ a month",
    )
    table(
        "Storage",
        columns,
        [
            (
                name,
                f"{stored / 1e6:.1f}",
                f"{stored / 1e9 * GB_MONTH_DOLLARS:.5f}",
                f"{_with_versions(spent, stored) / 1e6:.0f}",
                f"{_with_versions(spent, stored) / 1e9 * GB_MONTH_DOLLARS:.4f}",
            )
            for name, spent, stored in rows
        ],
    )


def _with_versions(spent: Spent, stored: int) -> int:
    """At most: whatever was sent is displaced or removed one day, and kept so long."""
    return stored + KEPT_VERSIONS_DAYS * spent.sent_bytes


def _scale(journal: tuple[Spent, int], interval: tuple[Spent, int]) -> None:
    columns = (
        "typical users",
        "journal: requests, $ a month",
        "intervals: requests, $ a month",
        "storage, $ a month",
        "with versions, $ a month",
        "journal: writes/s",
        "journal: reads/s",
    )
    spent, stored = journal
    writes = spent.requests(*LIKE_PUT, *FREE) / (HOURS * 3600)
    reads = spent.requests(*LIKE_GET) / (HOURS * 3600)
    table(
        f"From one user to many, all at work in the same {HOURS} hours",
        columns,
        [
            (
                f"{users:,}",
                f"{users * DAYS * dollars(spent):,.2f}",
                f"{users * DAYS * dollars(interval[0]):,.2f}",
                f"{users * stored / 1e9 * GB_MONTH_DOLLARS:,.2f}",
                f"{users * _with_versions(spent, stored) / 1e9 * GB_MONTH_DOLLARS:,.2f}",
                f"{users * writes:,.2f}",
                f"{users * reads:,.2f}",
            )
            for users in USERS
        ],
    )
    print(
        f"S3's limit for one prefix is {PUT_LIMIT:,} writes and {GET_LIMIT:,} reads a second: reached by "
        f"{PUT_LIMIT / writes:,.0f} and {GET_LIMIT / reads:,.0f} typical users at once."
    )
