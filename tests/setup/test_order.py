"""Long rooms go first where processes share the files; alone, tests stay as they are."""

from types import SimpleNamespace

import pytest
from setup.order import LONGEST, pytest_collection_modifyitems
from setup.rooms import rooms

TESTS = [
    "tests/files/test_a.py::b",
    "tests/composition/test_c.py::d",
    "tests/files/test_a.py::a",
    "tests/browser/e.py::f",
]


@pytest.mark.parametrize(("config", "order"), [({"workerinput": {}}, [3, 1, 0, 2]), ({}, [0, 1, 2, 3])])
def test_long_rooms_first(config, order):
    items = [SimpleNamespace(nodeid=test) for test in TESTS]
    pytest_collection_modifyitems(SimpleNamespace(**config), items)
    assert [item.nodeid for item in items] == [TESTS[number] for number in order]


def test_they_are_there():
    assert set(LONGEST) <= set(rooms())
