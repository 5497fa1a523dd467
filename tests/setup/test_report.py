"""The end of a run, as pytest prints it for made-up rooms."""

import os
import re
import subprocess
import sys

import pytest
from setup.report import left_without_host
from setup.rooms import TESTS, WITHOUT_HOST

PASSING = "def test_a(): pass\n"
SKIPPED = "import pytest\ndef test_b(): pytest.skip('no tool; to run them: buy one')\n"
MARKED = "import pytest\n@pytest.mark.skipif(True, reason='no file; to run them: find it')\ndef test_c(): pass\n"
SLOW = "import time\ndef test_d(): time.sleep(1.1)\n"


def end_of_run(folder, files, *options):
    for name, text in files.items():
        path = folder / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = dict(os.environ, PYTHONPATH=str(TESTS), COMFYUI_PATH=str(folder))
    command = [sys.executable, "-m", "pytest", "-p", "setup.report", "--rootdir", folder, *options, "tests"]
    # Two files of one name stand in two rooms.
    command.append("--import-mode=importlib")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def section(text, title):
    """The lines under a title; None without it."""
    found = re.search(rf"^=+ {title} =+\n((?:(?!=).*\n)*)", text, re.M)
    return list(filter(None, found[1].splitlines())) if found else None


@pytest.mark.parametrize("cores", [(), ("-n", "2")], ids=["one core", "two cores"])
def test_several_rooms(tmp_path, cores):
    files = {"one/test_x.py": PASSING + SKIPPED, "two/test_x.py": SLOW + SKIPPED + MARKED, "test_y.py": PASSING}
    text = end_of_run(tmp_path, files, *cores)
    assert section(text, "left out") == [
        "1 in two: no file; to run them: find it",
        "2 in one, two: no tool; to run them: buy one",
    ]
    rows = [line.split() for line in section(text, "time per room")]
    assert [(room, count) for room, count, *_ in rows[:1] + rows[-1:]] == [("two", "3"), ("all", "6")]
    assert {room: count for room, count, *_ in rows[1:-1]} == {"one": "2", "test_y.py": "1"}
    seconds = [float(row[-2]) for row in rows]
    assert 1.1 <= seconds[0] < 60 and seconds[-1] == pytest.approx(sum(seconds[:-1]), abs=0.2)
    slowest = section(text, "slowest 20 durations")
    assert re.fullmatch(r"1\.\d+s call +tests/two/test_x\.py::test_d", slowest[0])
    assert len(slowest) == 2 and "hidden" in slowest[1]


def test_one_room_is_quiet(tmp_path):
    text = end_of_run(tmp_path, {"one/test_x.py": PASSING})
    assert section(text, "left out") is section(text, "time per room") is None
    assert "durations" not in text


def test_ones_own_durations_stand(tmp_path):
    text = end_of_run(tmp_path, {"one/test_x.py": PASSING, "two/test_x.py": SLOW}, "--durations=1")
    assert len(section(text, "slowest 1 durations")) == 1


def test_without_a_host_the_rooms_are_named():
    left = left_without_host()
    assert "composition" in left and "to run them: python tests/run.py test" in left
    assert not re.search(rf"\b({'|'.join(map(re.escape, WITHOUT_HOST))})[,:]", left)
