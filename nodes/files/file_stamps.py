"""Values for the host's cache that follow files on disk."""

import contextlib
import hashlib
import json


def file_stamp(named):
    """A value that changes when one of some files, (name, path or None) each, changes, comes or goes."""
    state = hashlib.blake2b(digest_size=16)
    for name, path in named:
        found = [name]
        # it may go at this moment
        with contextlib.suppress(OSError):
            if path:
                status = path.stat()
                found = [str(path), status.st_mtime_ns, status.st_size]
        state.update(json.dumps(found).encode())
    # the host writes it into every picture: a digest tells nobody where the files lie
    return state.hexdigest()
