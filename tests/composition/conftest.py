"""What tests across rooms share."""

import pytest

from pack.nodes.host import messages
from pack.nodes.masks import shape_maps
from pack.nodes.reference_attention import entry_reader


@pytest.fixture(autouse=True)
def _no_map_is_kept(monkeypatch):
    """Each Layout Mask looks for itself."""
    monkeypatch.setattr(shape_maps, "_MOST", 0)


@pytest.fixture
def keys(monkeypatch):
    """What reference passes catch, one {block: (k, v, grid)} per reference and pass."""
    caught, real = [], entry_reader.caught

    def spy(*args):
        entries = real(*args)
        caught.extend(entries)
        return entries

    monkeypatch.setattr(entry_reader, "caught", spy)
    return caught


@pytest.fixture
def said(monkeypatch):
    """The sentences that are shown on a node."""
    found = []
    monkeypatch.setattr(messages, "_show", found.append)
    return found
