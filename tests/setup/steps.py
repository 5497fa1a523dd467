"""What every long step of the set-up shares: it is told, timed, finished once, and never run by two at a time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HEARTBEAT_SECONDS = 20


class SetupError(Exception):
    """Something the user can do something about; its text is one clear sentence."""


def done(stamp, pins):
    """Whether a step was finished with these pins."""
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == json.dumps(pins)


def mark(stamp, pins):
    stamp.write_text(json.dumps(pins), encoding="utf-8")


@contextlib.contextmanager
def step(title):
    start = time.monotonic()
    say(f"{title} ...")
    yield
    say(f"{title}: done in {time.monotonic() - start:.1f} s")


@contextlib.contextmanager
def locked(cache):
    """Only one process at a time sets the cache up. The system drops the lock of a process that dies."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("a+b") as file:
        if not try_lock(file):
            say("Another process is setting up the same cache; waiting for it ...")
            while not try_lock(file):
                time.sleep(0.5)
        yield


def try_lock(file):
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(command, log=None, **options):
    """Run a command to its end and give its exit code; with a log, say now and then that it is alive."""
    environment = options.pop("env", None) or clean_environment()
    output = dict(stdout=log, stderr=subprocess.STDOUT) if log else {}
    process = subprocess.Popen([str(part) for part in command], env=environment, **output, **options)
    start = time.monotonic()
    try:
        while True:
            try:
                return process.wait(HEARTBEAT_SECONDS if log else None)
            except subprocess.TimeoutExpired:
                say(f"  {time.monotonic() - start:.0f} s: {last_lines(log.name, 1)[:100]}")
    except BaseException as stopped:
        # Ctrl-C has reached the child too; a second one would cut short its clean-up, which stops a server.
        if not isinstance(stopped, KeyboardInterrupt):
            process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        raise


def clean_environment(**more):
    """The user's environment without what would send Python or pip to other folders."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH", "PIP_TARGET")}
    return {**kept, "PIP_USER": "0", "PYTHONUNBUFFERED": "1", **more}


def last_lines(path, count):
    return "\n".join(Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
