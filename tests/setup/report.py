"""A pytest plugin: what a run leaves out, why and how to get it, and how long each room took."""

import os
from collections import Counter, defaultdict

from pytest import CollectReport, TestReport, hookimpl
from setup.rooms import TESTS, WITHOUT_HOST, room_of, rooms

SLOWEST, SLOW_SECONDS = 20, 1.0


def has_host():
    return bool(os.environ.get("COMFYUI_PATH"))


def pytest_ignore_collect(collection_path):
    """Tests of the upper floors import ComfyUI: without it they are not even read."""
    if has_host() or TESTS not in collection_path.parents:
        return None
    return True if collection_path.relative_to(TESTS).parts[0] not in WITHOUT_HOST else None


@hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter, config):
    kinds = terminalreporter.stats.values()
    reports = [report for kind in kinds for report in kind if isinstance(report, TestReport | CollectReport)]
    left = left_out(reports) + ([] if has_host() else [left_without_host()])
    if left:
        terminalreporter.section("left out")
        for line in left:
            terminalreporter.line(line, yellow=True)
    times = time_per_room(reports)
    if len(times) > 1:
        terminalreporter.section("time per room")
        for line in table(times):
            terminalreporter.line(line)
        if config.option.durations is None:
            # pytest lists them itself, after this.
            config.option.durations, config.option.durations_min = SLOWEST, SLOW_SECONDS


def left_out(reports):
    """A line for each reason to skip: how many tests, of which rooms, and the reason."""
    found = defaultdict(Counter)
    for report in reports:
        if report.skipped and not hasattr(report, "wasxfail"):
            _, _, reason = report.longrepr
            found[reason.removeprefix("Skipped: ")][room_of(report.nodeid)] += 1
    return [f"{counts.total()} in {', '.join(sorted(counts))}: {reason}" for reason, counts in sorted(found.items())]


def left_without_host():
    left = [room for room in rooms() if room not in WITHOUT_HOST]
    return f"all in {', '.join(left)}: COMFYUI_PATH names no ComfyUI; to run them: python tests/run.py test"


def time_per_room(reports):
    """{room: (tests, seconds)}, the slowest first: setting up, running and tearing down, on all cores together."""
    tests, seconds = defaultdict(set), Counter()
    for report in reports:
        if isinstance(report, TestReport):
            tests[room_of(report.nodeid)].add(report.nodeid)
            seconds[room_of(report.nodeid)] += report.duration
    return {room: (len(tests[room]), spent) for room, spent in seconds.most_common()}


def table(times):
    whole = (sum(count for count, _ in times.values()), sum(spent for _, spent in times.values()))
    rows = [*times.items(), ("all", whole)]
    width = max(len(room) for room, _ in rows)
    return [f"{room:<{width}} {count:6} tests {spent:8.1f} s" for room, (count, spent) in rows]
