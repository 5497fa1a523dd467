"""What the host alone computes at a block, for all rows at once or chunk by chunk as it is asked for."""

from ...kernels.merged_attention import attention_with_lse
from .attention import lse_kernel, plain_attention, torch_attends
from .calls import attention_overridden, heads_of


class PlainAttention:
    """Plain attention of one block in one call of the UNet. `whole`: that of all rows (b, n, c), where it is known,
    and with the kernel that gives it `lse`, its log-sum-exp (b, h, n).

    A kernel that is not the host's own function only serves the rows that ask for it: what nobody changes stays what
    the host gives, to the bit.
    """

    def __init__(self, q, k, v, options, at_once=False, merges=False):
        """at_once: whether all rows are computed at once; merges: also, where their log-sum-exp is to be had."""
        self.inputs = q, k, v
        self.options = options
        self.whole = self.lse = None
        exact = torch_attends()
        self.kernel = lse_kernel(q, options) if merges and (exact or not at_once) else None
        if self.kernel is not None and exact:
            self.whole, self.lse = attention_with_lse(self.kernel, q, k, v, heads_of(options))
        elif at_once:
            self.whole = plain_attention(q, k, v, options)

    @property
    def free(self):
        """Whether the result may be made in place of `whole`: another pack's function may give what it keeps, and a
        gradient needs what it gave.
        """
        return self.whole is not None and not self.whole.requires_grad and not attention_overridden(self.options)

    def of(self, rows, alone):
        """The PlainRows of a slice of the batch; alone: whether a single reader makes the result of them."""
        return PlainRows(self, rows, alone)


class PlainRows:
    """Plain attention of the rows of one chunk, (b, n, c) when it is called; `rows`: which of the batch they are.

    `kernel` is that of PlainAttention, None where there is none.
    """

    def __init__(self, of_all, rows, alone):
        self.rows = rows
        self._of_all, self._alone = of_all, alone
        self._own = self._lse = None
        self.kernel = of_all.kernel

    def __call__(self):
        if self._own is None:
            of_all = self._of_all
            if of_all.whole is not None:
                self._own = of_all.whole[self.rows]
            else:
                self._own = plain_attention(*self._inputs(), of_all.options)
        return self._own

    def with_lse(self):
        """The same and its log-sum-exp (b, h, n), by the kernel."""
        of_all = self._of_all
        if of_all.lse is not None:
            return self(), of_all.lse[self.rows]
        if self._lse is None:
            self._own, self._lse = attention_with_lse(self.kernel, *self._inputs(), heads_of(of_all.options))
        return self._own, self._lse

    def picked(self, index):
        """The same of some of these rows, which are copied."""
        return _Picked(self, index)

    def changeable(self):
        """The same for whoever makes the result of it, in place: where nobody else reads it nothing is copied."""
        own = self()
        return own if self._alone and (self._lse is not None or self._of_all.free) else own.clone()

    def is_own(self, made):
        """Whether this is the place of plain attention itself, in that of all rows where there is one."""
        return made is self._own

    def _inputs(self):
        return (t[self.rows] for t in self._of_all.inputs)


class _Picked:
    """Plain attention of rows that lie apart."""

    kernel = None

    def __init__(self, plain, index):
        self._plain, self._index = plain, index

    def __call__(self):
        return self._plain()[self._index]

    def changeable(self):
        return self()
