"""What a technique is to attach.py: what it is asked before, during and after a run."""

from .layered_prompts import tell_of_unread


def begin_all(techniques, run):
    """Called at the start of a run of a MODEL with these techniques; ValueError refuses it."""
    if not any(technique.reads_contexts for technique in techniques):
        tell_of_unread(run)
    for technique in techniques:
        technique.begin(run)


class Branch:
    """What a technique puts at one block for one call. Its `label` is what messages call the technique."""

    label = ""
    # Whether it needs plain attention of all rows, which is then computed at once; and its log-sum-exp.
    adds = merges = False

    def prepare(self, plain):
        """Called with plain attention of all rows, where it is computed at once, before any of them is changed."""

    def __call__(self, q, k, v, options, chunk, plain):
        """The attention (shape of q, before the output projection) of the rows of one chunk, or None where it leaves
        them alone. plain: their PlainRows; what is returned may be plain.changeable().
        """
        raise NotImplementedError


class Technique:
    """What attach.py asks of an attention technique. Techniques are immutable: clones of a MODEL share them.

    `plan`, `around` and `patches` belong to one call, and several may run at once, each in a thread of its own and on a
    model of its own (see run.py). All else is called in the sampler's thread.
    """

    name = ""
    # Of several at one block or around one call, the one with the lower number comes first.
    order = 0
    # Bytes of main memory that it may keep across runs in the model's bank; None: it keeps nothing there.
    cache_bytes = None
    # Whether it brings the Contexts of prompts to the layers.
    reads_contexts = False

    def joined_by(self, later):
        """This technique and a later one of the same name, as one."""
        raise NotImplementedError

    def extra_rows(self, noise_shape):
        """Rows of `noise_shape` whose memory the technique needs beside the sampler's own."""
        return 0

    def models(self):
        """ModelPatchers that are to be loaded with the MODEL."""
        return []

    def begin(self, run):
        """Called at the start of a run, before the host loads the model; ValueError refuses a run."""

    def end(self, run):
        """Called at the end of a run, however it ends."""

    def enter(self, step):
        """Called before each evaluation that the sampler asks for, in its thread: what lives for the run may change."""

    def leave(self, step):
        """Called after it, when no call of the UNet is running any more; not after an error."""

    def shift(self, step):
        """What to add to the sampler's latent before a step (a tensor of its shape), or None."""
        return

    def other_lists(self, lists, conds, run, moment):
        """The OtherLists that are run in place of the step's, or None.

        lists: a Listed for each of `conds`, the lists of entries that the guider asks for (None where it needs none);
        moment(): that of the step.
        """
        return

    def plan(self, call):
        """{(kind, block): branch} for one call; kind is "attn1" or "attn2".

        A branch is a Branch."""
        return {}

    def around(self, call, forward):
        """The UNet for one call: `forward`, or a function around it, of (x, timesteps, context, y, control, options).

        What stands at the blocks, of us or of others, is in the options by then, and made for the rows of this call.
        """
        return forward

    def patches(self, call):
        """{slot: patch} for one call, for the host's slots that stack ("attn2_patch"); ours run before those there."""
        return {}

    def finished(self, run, latents):
        """A run came to its end with these latents, which are the result that the user gets."""


def joined_members(members, later):
    """The members of a technique and later ones of its nodes: those of equal `settings` become one, by `joined_by`."""
    joined = list(members)
    for new in later:
        equal = next((i for i, member in enumerate(joined) if member.settings == new.settings), None)
        if equal is None:
            joined.append(new)
        else:
            joined[equal] = joined[equal].joined_by(new)
    return tuple(joined)
