"""Breaks lines of the product on purpose, one at a time, and says which no test notices.

    COMFYUI_PATH=... python tests/break_lines.py [WORD ...]

The lines stand in tests/broken_lines.py; with words, only those whose file, text or tests hold one of them. Each is
broken in a copy of the checkout, never in the checkout itself. The tests named beside a line must pass while it is
whole and fail once it is broken. Ends with 0 if all was noticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from broken_lines import LINES

ROOT = Path(__file__).resolve().parents[1]
# A broken line may turn a loop endless.
SECONDS = 900
PASSED, FAILED = 0, 1


def main(words):
    chosen = [line for line in LINES if not words or any(word in " ".join(line) for word in words)]
    if not chosen:
        sys.exit("no line holds these words")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "pack"
        copied(ROOT, copy)
        unnoticed = [line for line in chosen if not noticed(copy, *line)]
    print(f"{len(chosen)} lines broken, {len(chosen) - len(unnoticed)} noticed")
    for path, old, new, tests in unnoticed:
        print(f"UNNOTICED {path}: {old!r} -> {new!r} ({tests})")
    sys.exit(bool(unnoticed))


def copied(root, target):
    """Copies what git keeps or would keep, as it stands in the checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def noticed(copy, path, old, new, tests):
    """Whether the tests fail with the line broken; SystemExit where they prove nothing."""
    whole = (copy / path).read_text(encoding="utf-8")
    if whole.count(old) != 1:
        sys.exit(f"{path} holds {old!r} {whole.count(old)} times; a line to break must stand there once")
    if outcome(copy, tests) != PASSED:
        sys.exit(f"{tests} fails with every line whole")
    (copy / path).write_text(whole.replace(old, new), encoding="utf-8")
    try:
        found = run(copy, tests)
    finally:
        (copy / path).write_text(whole, encoding="utf-8")
    if found not in (PASSED, FAILED, None):
        sys.exit(f"{path}: {new!r} leaves nothing to test (pytest ended with {found}); break the line otherwise")
    print(f"{'unnoticed' if found == PASSED else 'noticed  '} {path}: {old.strip()!r} -> {new.strip()!r}", flush=True)
    return found != PASSED


@lru_cache
def outcome(copy, tests):
    return run(copy, tests)


def run(copy, tests):
    """How pytest ends; None where it does not end in time. tests: its arguments, such as "tests/x.py -k one"."""
    path, _, word = tests.partition(" -k ")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *path.split()]
    command += ["-k", word] if word else []
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=SECONDS).returncode
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
