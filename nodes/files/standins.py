"""What stands for the objects of a pickle: data that does nothing, whatever the pickle asks of it."""

# Numbers whose hashes cannot be made alike.
_SMALL = 1 << 31


class StandIn:
    """An object of any class: its name, the arguments that made it, its state."""

    __slots__ = ("args", "items", "state")
    name = ""

    def __new__(cls, *args, **kwargs):
        made = super().__new__(cls)
        made.args, made.items, made.state = args, [], None
        return made

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        self.state = state

    def append(self, item):
        self.items.append(item)

    def extend(self, items):
        self.items.extend(items)

    def __setitem__(self, key, value):
        self.items.append((key, value))


class Named(dict):
    """A dict by texts and small numbers; entries by anything else are left out."""

    __slots__ = ()

    def __setitem__(self, key, value):
        if isinstance(key, str) or (isinstance(key, int) and abs(key) < _SMALL):
            super().__setitem__(key, value)

    def __setstate__(self, state):
        pass


class Bag(list):
    """What was a set."""

    __slots__ = ()
    add = list.append

    def __setstate__(self, state):
        pass


class Marker:
    """A torch type or a number format: its name, nothing that can be called."""

    __slots__ = ("name",)

    def __init__(self, name):
        self.name = name

    def __setstate__(self, state):
        pass


class StoredTensor:
    """Where the values of a tensor lie: (key of the storage, its format), and which of them they are."""

    __slots__ = ("offset", "shape", "storage", "stride")

    def __init__(self, storage, offset, shape, stride):
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def __setstate__(self, state):
        pass
