"""Tests with many parameters: a few of them on every run, the others where all are wanted (run.py test --whole)."""

import pytest


def few_of(values, *quick):
    """Values of one parameter of a test: `quick` on every run; the others are marked slow.

    Raises:
        ValueError: if one of `quick` is no value, as when it was renamed.
    """
    return _few([(value,) for value in values], [(value,) for value in quick])


def few_rows_of(rows, *quick):
    """The same for several parameters together: rows of values."""
    return _few(list(rows), quick)


def _few(rows, quick):
    if missing := [row for row in quick if row not in rows]:
        raise ValueError(f"{missing} are none of the parameters {rows}")
    return [pytest.param(*row, marks=[] if row in quick else [pytest.mark.slow]) for row in rows]


def chosen(request, name):
    """Values of a parameter in the tests of this run that use the fixture of this request: what it has to prepare."""
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    params = [item.callspec.params for item in items if request.fixturename in item.fixturenames]
    return list(dict.fromkeys(one[name] for one in params if name in one))
