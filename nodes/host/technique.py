"""What a technique is to attach.py: what it is asked before, during and after a run."""


class Technique:
    """What attach.py asks of an attention technique. Techniques are immutable: clones of a MODEL share them."""

    name = ""
    # Of several at one block or around one call, the one with the lower number comes first.
    order = 0

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

    def shift(self, step):
        """What to add to the sampler's latent before a step (a tensor of its shape), or None."""
        return

    def plan(self, call):
        """{(kind, block): branch} for one call; kind is "attn1" or "attn2".

        A branch is called as branch(q, k, v, options, chunk, plain) with the rows of one chunk; plain() is what the
        host alone would compute for them. It returns their attention (shape of q, before the output projection), or
        None where it leaves the chunk alone. One that adds to plain attention says so by `adds = True`: then plain
        attention is computed for all rows at once.
        """
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
