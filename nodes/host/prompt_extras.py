"""What other nodes put on a prompt, said where only its text is read."""

from .messages import warn_user

# {name in a conditioning's dictionary: what to call it}
EXTRAS = {
    "control": "a ControlNet",
    "gligen": "GLIGEN boxes",
    "hooks": "hooks",
    "area": "an area",
    "mask": "a mask",
    "start_percent": "a timestep range",
    "concat_latent_image": "a picture to inpaint or edit",
}


def say_unused(conditioning, label, instead):
    """Says on the node what else than the text of its first entry a CONDITIONING holds.

    label: what to call it; instead: the end of the sentence, what is used.
    """
    values = conditioning[0][1]
    unused = [said for name, said in EXTRAS.items() if values.get(name) is not None]
    if values.get("strength", 1.0) != 1.0:
        unused.append("a strength")
    if len(conditioning) > 1:
        unused.insert(0, f"{len(conditioning)} combined prompts (only the first is used)")
    if unused:
        warn_user(f"{label} has {', '.join(unused)}; {instead}")
