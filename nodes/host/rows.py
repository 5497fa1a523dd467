"""Which rows are whose: the chunks of one UNet call and their roles."""

from dataclasses import dataclass

from .calls import coupled_sides_of, sides_of, with_sides

COND, UNCOND = "cond", "uncond"
# What the host's guiders call the lists of the prompt and of what to stay away from.
POSITIVE, NEGATIVE = "positive", "negative"
# Where the lists that a call runs stand in its transformer options.
LISTS = "personalization_lists"
# Whether they are those of a technique of ours, in place of the step's own.
EXCHANGED = "personalization_exchanged"


@dataclass(frozen=True)
class Reading:
    """What the rows of a list read of reference pictures: whether any, and by how many timesteps these are noisier."""

    references: bool = True
    shift: int = 0


@dataclass(frozen=True)
class Listed:
    """One list of entries that a call runs."""

    name: str | None  # the guider's, or that of a technique of ours; None: nobody's
    reading: Reading = Reading()


@dataclass(frozen=True)
class Chunk:
    """Neighbouring rows of the batch that carry one conditioning."""

    start: int
    stop: int
    role: str
    uuid: object = None
    # (height, width, top, left) in latent pixels if only a part of the picture is run, else None
    area: tuple | None = None
    reading: Reading = Reading()
    # of the guider's list that it was run from; None: some node's own
    name: str | None = None

    @property
    def rows(self):
        return slice(self.start, self.stop)


def named_lists(lists, conds):
    """A Listed for each list of entries that is about to be run, without a name where it is no list of the guider's.

    conds: the guider's named conditionings ({name: [entry, ...]}).
    """
    return tuple(Listed(next((name for name, own in conds.items() if own is entries), None)) for entries in lists)


def chunks_of(options, batch, conds):
    """The chunks of a UNet call of `batch` rows.

    options: its transformer_options; conds: the guider's named conditionings, {} if unknown. The role of a chunk comes
    from the name of the list that it was run from (LISTS in the options), else from the name under which the
    guider holds its uuid. One that stands on both sides (the host copies entries to match areas) is of the side that
    the host gives it; so are all of a run without a guider, which count as of the usual two lists. A uuid that the
    guider does not hold is some node's own list, as the empty prompt of the old Perp-Neg: unconditional.
    """
    order, uuids = sides_of(options)
    lists = options.get(LISTS, ())
    if batch % len(order) or len(uuids) != len(order):
        # rows that nobody explains: one chunk, and nothing that depends on its uuid
        order, uuids = [0], [None]
    size = batch // len(order)
    chunks = []
    for i, (index, uuid) in enumerate(zip(order, uuids, strict=True)):
        known = [(name, entry) for name, entries in conds.items() for entry in entries if entry.get("uuid") == uuid]
        own = lists[index] if index < len(lists) else Listed(None)
        holders = {own.name} if own.name else {name for name, _ in known}
        roles = {_role(name) for name in holders} if uuid is not None else set()
        if uuid is not None and conds and not holders:
            roles = {UNCOND}
        role = roles.pop() if len(roles) == 1 else UNCOND if index == 1 else COND
        area = next((entry["area"] for name, entry in known if _role(name) == role and entry.get("area")), None)
        name = own.name or next((name for name, _ in known if _role(name) == role), None)
        if name is None and (uuid is None or not conds):
            name = NEGATIVE if role == UNCOND else POSITIVE
        chunks.append(Chunk(i * size, (i + 1) * size, role, uuid, area, own.reading, name))
    return tuple(chunks)


def told_by_role(options, chunks):
    """The options of a call of the UNet with these chunks as other packs read them: 0 for a conditional, 1 for an
    unconditional one, also where a technique had other lists run, whose numbers say nothing of that.
    """
    if not options.get(EXCHANGED):
        return options
    return with_sides(options, [int(chunk.role == UNCOND) for chunk in chunks])


def coupled_chunks(options, batch):
    """The chunks of `batch` rows at a block where a node that couples prompts to parts of the picture has put in more.

    Such a node lists them in the block's options: 0 for a conditional, 1 for an unconditional one. () if none did.
    """
    order = coupled_sides_of(options)
    if not order or batch % len(order):
        return ()
    size = batch // len(order)
    return tuple(Chunk(i * size, (i + 1) * size, UNCOND if index == 1 else COND) for i, index in enumerate(order))


def entry_of(chunk, conds):
    """The entry whose text a chunk's rows carry, None if nobody knows it; conds as for `chunks_of`.

    To match areas the host copies an entry to the opposite side, all of it but what the model gets: there the text is
    that of an entry of the side itself.
    """
    for name, entries in conds.items():
        if _role(name) != chunk.role:
            continue
        for entry in entries:
            if chunk.uuid is not None and entry.get("uuid") == chunk.uuid:
                text = entry.get("model_conds", {}).get("c_crossattn")
                same = (e for e in entries if text is not None and e.get("model_conds", {}).get("c_crossattn") is text)
                return next(same, entry)
    return None


def place_of(chunk, conds):
    """Where the entry of a chunk stands among the guider's prompts of its role, from 0; the last place if unknown."""
    mine = [entry.get("uuid") for name, entries in conds.items() if _role(name) == chunk.role for entry in entries]
    return mine.index(chunk.uuid) if chunk.uuid is not None and chunk.uuid in mine else len(mine)


def prompts_of(conds):
    """The entries of the lists that are no negatives; conds as for `chunks_of`."""
    return [entry for name, entries in conds.items() if _role(name) == COND for entry in entries]


def acting_prompt(conds, sigma):
    """The first positive prompt of the guider's that acts at a noise level, None without one; conds as `chunks_of`."""
    for entry in conds.get("positive") or ():
        start, end = (entry.get(name) for name in ("timestep_start", "timestep_end"))
        if (start is None or sigma <= start) and (end is None or sigma >= end):
            return entry
    return None


def _role(name):
    return UNCOND if "negative" in name or "uncond" in name else COND
