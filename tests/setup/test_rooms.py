"""The lists of rooms name what is there, and leave out only what they may."""

import re

import pytest
from setup.rooms import ON_OLDER_HOSTS, TESTS, WITHOUT_HOST, on_older_hosts, room_of, rooms
from support.nodes_table import TECHNIQUES

IMPORTS_HOST = re.compile(r"^\s*(?:import|from) (?:comfy\w*|folder_paths|nodes|pack\.nodes)\b", re.M)


def test_every_room_of_a_list_is_there():
    assert set(WITHOUT_HOST) <= set(rooms())
    assert all((TESTS / name).exists() for name in ON_OLDER_HOSTS)


def test_folders_without_tests_are_no_rooms():
    assert {"kernels", "composition", "test_nodes.py"} <= set(rooms())
    assert not {"support", "bench", "golden", "run.py", "conftest.py"} & set(rooms())


@pytest.mark.parametrize(
    "test", ["tests/kernels/test_kmeans.py::test_a[x/y::z]", "tests/kernels/deep/test_a.py", "tests/kernels"]
)
def test_the_room_of_a_test(test):
    assert room_of(test) == "kernels"


def test_a_file_beside_the_rooms_is_one_of_its_own():
    assert room_of("tests/test_nodes.py::test_words[a]") == "test_nodes.py"


def test_older_hosts_see_each_technique_and_nothing_that_needs_none():
    paths = [TESTS.parent / path for path in on_older_hosts()]
    assert len(set(paths)) == len(paths) and all(path.exists() for path in paths)
    seen = {room_of(path.relative_to(TESTS.parent).as_posix()) for path in paths}
    assert not seen & set(WITHOUT_HOST)
    assert {technique.room for technique in TECHNIQUES} <= seen


def test_what_needs_no_host_imports_none():
    for path in TESTS.rglob("test_*.py"):
        if room_of(path.relative_to(TESTS.parent).as_posix()) in WITHOUT_HOST:
            assert not IMPORTS_HOST.search(path.read_text(encoding="utf-8")), path
