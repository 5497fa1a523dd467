"""Which rows of a batch run through which path."""

import torch

from ...kernels.row_adapters import add_raised


class RowGroups:
    """The rows of one batch by path; path 0 is the base and in no group."""

    def __init__(self, path_of_rows, paths):
        """path_of_rows: the path of each row; paths: how many there are beside the base.

        Raises ValueError for a path that does not exist.
        """
        order = path_of_rows.tolist() if isinstance(path_of_rows, torch.Tensor) else list(path_of_rows)
        self.count = len(order)
        self._rows = {}
        for row, path in enumerate(order):
            if not 0 <= path <= paths:
                raise ValueError(f"row {row} is of path {path}; there are {paths} beside the base, 0")
            if path:
                self._rows.setdefault(path, []).append(row)
        self.paths = frozenset(self._rows)
        self._order, self._all = order, paths
        self._spans, self._first = {}, {}

    def first(self, count):
        """The groups of the first `count` rows alone."""
        if count not in self._first:
            self._first[count] = RowGroups(self._order[:count], self._all)
        return self._first[count]

    def spans(self, paths):
        """Spans that together hold the rows of these paths, as few as can be: those with equally many rows share one.

        paths: a tuple of paths, of which some may have no rows.
        """
        if paths not in self._spans:
            by_count = {}
            for path, rows in self._rows.items():
                if path in paths:
                    by_count.setdefault(len(rows), []).append(path)
            self._spans[paths] = [self._span(several) for several in by_count.values()]
        return self._spans[paths]

    def _span(self, paths):
        return Span(tuple(paths), tuple(row for path in paths for row in self._rows[path]))


class Span:
    """Rows of some paths, equally many of each, in the order of `paths`."""

    def __init__(self, paths, rows):
        self.paths = paths
        self.rows = rows
        self._contiguous = list(rows) == list(range(rows[0], rows[0] + len(rows)))

    def of(self, x, tiles):
        """These rows of x (rows * tiles, ...) by path: (k, rows of one path * tiles, ...), a view where they follow."""
        mine = x[self._slice(tiles)] if self._contiguous else x.index_select(0, self._index(tiles, x.device))
        return mine.unflatten(0, (len(self.paths), -1))

    def add(self, y, tiles, delta):
        """Adds delta (k, rows of one path * tiles, ...) to these rows of y, in place."""
        delta = delta.flatten(0, 1).to(y.dtype).expand(-1, *y.shape[1:])
        if self._contiguous:
            y[self._slice(tiles)].add_(delta)
        else:
            y.index_add_(0, self._index(tiles, y.device), delta)

    def add_product(self, y, tiles, hidden, up):
        """Adds hidden . up^T to these rows of y (rows * tiles, ..., o), in place.

        hidden (k, m, r): of the m vectors of each path; up (k, o, r).
        """
        if self._contiguous and y.is_contiguous():
            add_raised(y[self._slice(tiles)].view(len(self.paths), -1, y.shape[-1]), hidden, up)
        else:
            delta = add_raised(y.new_zeros(*hidden.shape[:2], y.shape[-1]), hidden, up)
            self.add(y, tiles, delta.reshape(len(self.paths), -1, *y.shape[1:]))

    def _slice(self, tiles):
        return slice(self.rows[0] * tiles, (self.rows[-1] + 1) * tiles)

    def _index(self, tiles, device):
        rows = torch.tensor(self.rows, device=device)
        return (rows[:, None] * tiles + torch.arange(tiles, device=device)).flatten()
