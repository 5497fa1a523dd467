"""A pickle that shows whether a reader ran it."""

import os


class Harmful:
    """Its pickle makes a folder when it is loaded by an unsafe loader."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
