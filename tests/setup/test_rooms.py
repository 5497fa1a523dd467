"""The lists of rooms name what is there, and leave out only what they may."""

import re

import pytest
from setup.rooms import NEWEST_ONLY, POCKET_IN_HOST, TESTS, WITHOUT_HOST, on_every_host, room_of, rooms

IMPORTS_HOST = re.compile(r"^\s*(?:import|from) (?:comfy\w*|folder_paths|nodes|pack\.nodes)\b", re.M)


def test_every_room_of_a_list_is_there():
    assert set(WITHOUT_HOST + NEWEST_ONLY) <= set(rooms())
    assert all((TESTS / name).is_file() for name in POCKET_IN_HOST)


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


def test_every_host_sees_what_imports_it():
    """All but training, the front end and what needs no ComfyUI."""
    everywhere = [TESTS.parent / path for path in on_every_host()]
    for path in TESTS.rglob("test_*.py"):
        left = not any(path == place or place in path.parents for place in everywhere)
        if left and room_of(path.relative_to(TESTS.parent).as_posix()) not in NEWEST_ONLY:
            assert not IMPORTS_HOST.search(path.read_text(encoding="utf-8")), path
    assert [path for path in everywhere if not path.exists()] == []
