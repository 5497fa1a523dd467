import pytest

from pack.nodes.reference_attention import noise_level


@pytest.fixture
def keys(monkeypatch):
    """What reference passes catch, one {block: (k, v)} per reference and pass."""
    caught, real = [], noise_level.caught_keys

    def spy(*args):
        entries = real(*args)
        caught.extend(entries)
        return entries

    monkeypatch.setattr(noise_level, "caught_keys", spy)
    return caught
