"""The parts of the benchmark. Each takes the sizes and returns the lines of the report."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import timedelta
from itertools import cycle, islice, permutations, starmap

from bench import memory as memories
from bench import plot
from bench import scale as scales
from bench.contenders import Contender, Floor, Naive, Worker
from bench.disk import Disk
from bench.enrolment import enrolment
from bench.reads import BARE_GET, GET_AND_OPEN, MSAL, WITH_MEMORY, WITHOUT_MEMORY
from bench.reads import reads as measure_reads
from bench.report import Line, at_least, at_most
from bench.shape import day, outage
from bench.site import ROOT, Site
from bench.sizes import Sizes
from bench.throughput import Trial, trial

OF_THE_FLOOR, OF_THE_NAIVE = 0.7, 5.0  # targets: at least these shares of their rates
FLAT = 1.5  # target: at most this ratio of the largest table's time to the smallest's
_MILLISECOND = timedelta(milliseconds=1)


def throughput(sizes: Sizes) -> list[Line]:
    """The contenders take turns in every order, because each leaves its traces in the stores."""
    with Site() as site:
        site.enrol(sizes.accounts)
        return [line for latency in sizes.latencies for line in _throughput_at(site, sizes, latency)]


def _contenders(site: Site, sizes: Sizes, *, waiting: bool) -> Sequence[Contender]:
    """``waiting`` means that responses take time, so that more processes and smaller batches pay."""
    children, floors, floor_batch, naive_children = (
        (sizes.children_waiting, sizes.floor_processes_waiting, sizes.floor_batch_waiting, sizes.naive_children_waiting)
        if waiting
        else (sizes.children, sizes.floor_processes, sizes.floor_batch, sizes.naive_children)
    )
    return (
        Worker(site, sizes.accounts, children=children, connections=sizes.connections, batch=sizes.batch),
        Floor(site, sizes.accounts, processes=floors, batch=floor_batch),
        Naive(site, sizes.naive_accounts, children=naive_children),
    )


def _throughput_at(site: Site, sizes: Sizes, latency: int) -> list[Line]:
    contenders = _contenders(site, sizes, waiting=latency > 0)
    with site.provider(latency=latency * _MILLISECOND) as provider:
        turns = [
            {each.name: trial(each, provider, seconds=sizes.seconds) for each in order}
            for order in islice(cycle(permutations(contenders)), sizes.turns)
        ]
    part = f"throughput at {latency} ms"
    lines = []
    for name in (contender.name for contender in contenders):
        trials = [turn[name] for turn in turns]
        lines += [
            Line(part=part, figure=f"{name}, refreshes", value=_median(trials, lambda t: t.rate), unit="per s"),
            Line(part=part, figure=f"{name}, own CPU", value=_median(trials, lambda t: t.cpu), unit="ms each"),
            Line(part=part, figure=f"{name}, stores' CPU", value=_median(trials, lambda t: t.stores), unit="ms each"),
            Line(
                part=part, figure=f"{name}, provider's CPU", value=_median(trials, lambda t: t.provider), unit="ms each"
            ),
            Line(part=part, figure=f"{name}, WAL", value=_median(trials, lambda t: t.wal), unit="bytes each"),
            Line(part=part, figure=f"{name}, commits", value=_median(trials, lambda t: t.commits), unit="each"),
        ]
    ordered = [(turn["worker"], turn["floor"], turn["naive"]) for turn in turns]
    compared: list[tuple[str, float, Callable[[Trial, Trial, Trial], float]]] = [
        ("per second, of the floor's", OF_THE_FLOOR, lambda real, floor, _: real.rate / floor.rate),
        ("per CPU of all, of the floor's", OF_THE_FLOOR, lambda real, floor, _: floor.all_cpu / real.all_cpu),
        ("per CPU of its own, of the floor's", OF_THE_FLOOR, lambda real, floor, _: floor.cpu / real.cpu),
        ("per second, of the naive way's", OF_THE_NAIVE, lambda real, _, naive: real.rate / naive.rate),
        ("per CPU of its own, of the naive way's", OF_THE_NAIVE, lambda real, _, naive: naive.cpu / real.cpu),
    ]
    return [
        *lines,
        *(
            Line(part=part, figure=f"worker {what}", **at_least(target, statistics.median(starmap(ratio, ordered))))
            for what, target, ratio in compared
        ),
    ]


def _median(trials: Iterable[Trial], figure: Callable[[Trial], float]) -> float:
    return statistics.median(map(figure, trials))


def reads(sizes: Sizes) -> list[Line]:
    """The time of a consumer's read."""
    with Site() as site, site.provider() as provider:
        found = measure_reads(site, provider, accounts=sizes.readers, each=sizes.reads, turns=sizes.read_turns)
    ways = {read.way: read for read in found}
    part = "reads"
    lines = [Line(part=part, figure=read.way, value=read.microseconds, unit="µs") for read in found]
    compared = ((0.7, GET_AND_OPEN, WITHOUT_MEMORY), (10, BARE_GET, WITH_MEMORY), (10, MSAL, WITH_MEMORY))
    return [
        *lines,
        *(
            Line(part=part, figure=f"{other}, of {way}", **at_least(target, ways[other].slower_than(ways[way])))
            for target, other, way in compared
        ),
        # Without a target. Both read Redis, and MSAL seals nothing.
        Line(part=part, figure=f"{MSAL}, of {WITHOUT_MEMORY}", value=ways[MSAL].slower_than(ways[WITHOUT_MEMORY])),
    ]


def scale(sizes: Sizes) -> list[Line]:
    """The same statements on larger and larger tables."""
    part = "scale"
    with Site() as site, site.provider():
        enrolled = enrolment(site, sizes.imports, sizes.turns)
        lines = [
            Line(part=part, figure="imported", value=enrolled.per_second, unit="accounts per s"),
            Line(part=part, figure="that, of a bare COPY of the same rows", value=enrolled.of_copy),
            Line(part=part, figure="Redis", value=enrolled.redis_bytes, unit="bytes per account"),
        ]
        scales.hurry_vacuum(site)
        with scales.filled(site, sizes.tables) as tables, closing(Disk(site.directory)) as disk:
            for _ in range(sizes.batches):
                for table in tables:
                    table.work()
                disk.work()
            costs = [cost for table in tables for cost in table.costs(sizes.stretches)]
            lines += [line for cost in costs for line in _cost_lines(part, cost)]
            figure = "1 MB written and synced, no Postgres, p99"
            lines.append(Line(part=part, figure=figure, value=disk.p99(sizes.stretches), unit="ms"))
            lines += [line for table in tables for line in _weight_lines(part, table.weight())]
        with scales.filled(site, [sizes.bloat_accounts]) as [table]:
            bloat = scales.bloat(table, sizes.cycles)
    return [
        *lines,
        *_flatness(part, costs),
        Line(part=part, figure=f"table after {bloat.cycles} cycles", value=bloat.growth, unit="times"),
        Line(part=part, figure="dead rows then", value=bloat.dead_share, unit="of the live"),
        Line(part=part, figure="autovacuums then", value=bloat.autovacuums),
    ]


def _cost_lines(part: str, cost: scales.Cost) -> list[Line]:
    what = f"{cost.accounts:,}: {cost.work}"
    wal = Line(part=part, figure=f"{what}, WAL", value=cost.wal, unit="bytes per account")
    return [
        Line(part=part, figure=f"{what}, p50", value=cost.p50, unit="ms"),
        Line(part=part, figure=f"{what}, p99", value=cost.p99, unit="ms"),
        Line(part=part, figure=f"{what}, p99 before commit", value=cost.p99_before_commit, unit="ms"),
        *([wal] if cost.work != "sweep" else []),  # a sweep writes nothing
    ]


def _weight_lines(part: str, weight: scales.Weight) -> list[Line]:
    what = f"{weight.accounts:,}"
    return [
        Line(part=part, figure=f"{what}: table", value=weight.table, unit="bytes per account"),
        Line(part=part, figure=f"{what}: indexes", value=weight.indexes, unit="bytes per account"),
        Line(part=part, figure=f"{what}: ledger", value=weight.ledger, unit="bytes per event"),
        Line(part=part, figure=f"{what}: index used", **at_least(1, float(weight.index_used))),
    ]


def _flatness(part: str, costs: Sequence[scales.Cost]) -> list[Line]:
    lines = []
    for work in dict.fromkeys(cost.work for cost in costs):
        same = [cost for cost in costs if cost.work == work]
        smallest, largest = same[0], same[-1]
        flat = largest.p99_before_commit / smallest.p99_before_commit
        figure = "{}, {}: largest table, of the smallest".format
        lines += [
            Line(part=part, figure=figure(work, "p50"), **at_most(FLAT, largest.p50 / smallest.p50)),
            Line(part=part, figure=figure(work, "p99 before commit"), **at_most(FLAT, flat)),
            Line(part=part, figure=figure(work, "p99"), value=largest.p99 / smallest.p99),
        ]
    return lines


def memory(sizes: Sizes) -> list[Line]:
    """One child and many refreshes, with the default number of connections and a large batch."""
    with Site() as site, site.provider() as provider:
        site.enrol(sizes.accounts)
        grown = memories.growth(site, provider, accounts=sizes.accounts, first=sizes.first, refreshes=sizes.refreshes)
    figure = f"growth of a child between {grown.first:,} and {grown.refreshes:,} refreshes"
    return [
        Line(
            part="memory",
            figure=f"a child with {memories.CONNECTIONS} connections",
            value=grown.after_all / 1_000_000,
            unit="MB",
        ),
        Line(part="memory", figure=figure, unit="MB", **at_most(10, grown.megabytes)),
    ]


def shape(sizes: Sizes, *, draw: bool = False) -> list[Line]:
    """A day and a day with an outage, both on a virtual clock."""
    part, usual = "shape", day(sizes.fleet, sizes.rate)
    if draw:
        mean = sizes.fleet / 36
        title = f"Requests per minute, {sizes.fleet:,} accounts imported in the first (not shown)"
        plot.write(ROOT / "docs" / "shape.svg", usual.per_minute, title=title, mean=mean, top=2 * mean)
    back = outage(sizes.fleet, sizes.rate, sizes.ends)
    return [
        Line(part=part, figure="peak to mean after the first cycle", **at_most(1.3, usual.peak_to_mean)),
        Line(part=part, figure="overdue after two hours' outage", value=back.backlog, unit="accounts"),
        Line(
            part=part,
            figure=f"until it is noticed, the longest of {sizes.ends} ends",
            value=back.noticed.total_seconds(),
            unit="s",
        ),
        Line(part=part, figure="until all are fresh", value=back.healthy.total_seconds(), unit="s"),
        Line(part=part, figure="that, of the arithmetic minimum", **at_most(1.1, back.ratio)),
        Line(part=part, figure="peak to mean after that", value=back.peak_to_mean),
    ]
