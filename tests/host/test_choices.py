"""A value that a dropdown does not list is refused, whatever it is."""

import pytest

from pack.nodes.host.choices import check_listed


def test_only_what_is_listed_is_taken():
    check_listed("device", "cpu", ("cpu", "gpu"))
    for value in ("tpu", "", "\x00", "\ud800", "../x", None, 3, [], {}):
        with pytest.raises(ValueError, match='^device is ".*"; choose one of cpu, gpu$'):
            check_listed("device", value, ("cpu", "gpu"))
