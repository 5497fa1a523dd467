"""A pytest plugin: where processes share the files, those that take minutes go first, so that none ends long after."""

from setup.rooms import room_of

LONGEST = ("browser", "server", "setup", "test_placed.py", "composition", "image_prompts")


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))


def rank(test):
    """Where the room of a test stands in the order."""
    room = room_of(test)
    return LONGEST.index(room) if room in LONGEST else len(LONGEST)
