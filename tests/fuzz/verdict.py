"""One piece of work on hostile input, and what was wrong with how it ended: raw errors, time, memory, code that ran."""

import contextlib
import signal
import sys
import time
import traceback
from pathlib import Path

# What a file of less than 1 MB, or a node on small inputs, may cost.
SECONDS, BYTES = 2.0, 1 << 30
# Seconds after which something waits for what never comes.
WAITING = 120


def faults_of(work, said, marker=None, limit=SECONDS):
    """(result or None, [faults]) of one call; `said` takes the sentences that the pack says meanwhile.

    Time is that of the processor, since others may use the machine; limit: its seconds. `marker` is what planted code
    would make.
    """
    from pack.nodes.host.messages import visible

    faults, result = [], None
    held, start = _memory("VmRSS", fresh=True), time.process_time()
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(WAITING)
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 (whatever comes is what we look for)
        faults += _raw(error, said)
    finally:
        signal.alarm(0)
    seconds, peak = time.process_time() - start, _memory("VmHWM") - held
    if seconds > limit:
        faults.append(f"took {seconds:.1f} s")
    if peak > BYTES:
        faults.append(f"took {peak >> 20} MB")
    if marker is not None and marker.exists():
        faults.append("ran what the file asked for")
        marker.rmdir()
    shown = [all(map(visible, one)) and len(one) <= 500 for one in said]
    faults += [f"says what cannot be shown: {one!r}" for one, good in zip(said, shown, strict=True) if not good]
    return result, faults


@contextlib.contextmanager
def listening():
    """Lists the sentences that the pack shows on nodes."""
    from pack.nodes.host import messages

    found, shown = [], messages._show
    messages._show = lambda message: found.append(messages.plain(message))
    try:
        yield found
    finally:
        messages._show = shown


def _late(*_):
    raise TimeoutError(f"waited for {WAITING} s")


def _raw(error, said):
    """What is wrong with an exception: nothing, if it says one of the pack's own sentences."""
    if type(error) is ValueError and str(error) in said:
        return []
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent != Path(__file__).parent
    ]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the fuzzer"
    pack = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "/nodes/" in frame.filename]
    return [f"{type(error).__name__} in {where} from {pack[-1:]}: {str(error)[:150]!r}"]


def _memory(what, fresh=False):
    """A line of this process's memory in bytes, `fresh` after its peak was forgotten; 0 where no system tells it."""
    if not sys.platform.startswith("linux"):
        return 0
    if fresh:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) << 10
    return 0
