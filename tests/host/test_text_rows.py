"""Texts of several lengths in one batch, by the host's rule."""

import pytest

from pack.nodes.host.text_rows import tokens_together


@pytest.mark.parametrize(
    ("counts", "together"),
    [
        ((77,), 77),
        ((77, 154), 154),
        ((77, 154, 231), None),
        ((77, 308), 308),
        ((77, 385), None),
        ((3, 4), 12),
        ((3, 5), None),
        ((7, 11), None),
    ],
    ids=str,
)
def test_the_shorter_is_repeated_up_to_four_times(counts, together):
    assert tokens_together(counts) == tokens_together(counts[::-1]) == together
