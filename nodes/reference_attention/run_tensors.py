"""What attention with references reads that is the same at all noise levels of a run: moved to the device once."""

import torch

from ...kernels.masks import nearest_resize


class RunTensors:
    """Biases, regions and places of references, on the device; made when they are first asked for."""

    def __init__(self):
        self._moved = {}

    def bias(self, row, grid, device):
        """The bias (m,) of a reference's kept tokens on a grid."""
        return self._once((row, grid, device), lambda: row.kept(grid)[1].to(device))

    def region(self, row, grid, frame, device):
        """ln of a reference's region at the tokens (n,) of a grid, which shows a frame of the result."""

        def make():
            region = row.view.region
            found = torch.ones(grid) if region is None else nearest_resize(region, grid, frame)
            return found.flatten().log().to(device)

        return self._once(("region", row, grid, frame, device), make)

    def segments_of_tokens(self, lengths, device):
        """The number of the segment of each token, of segments of these lengths: (sum of lengths,) int64."""
        return self._once(
            ("segments", lengths, device),
            lambda: torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(device),
        )

    def _once(self, key, make):
        if key not in self._moved:
            self._moved[key] = make()
        return self._moved[key]
