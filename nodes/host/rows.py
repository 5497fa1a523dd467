"""Which rows are whose: the chunks of one UNet call and their roles."""

from dataclasses import dataclass

COND, UNCOND = "cond", "uncond"


@dataclass(frozen=True)
class Chunk:
    """Neighbouring rows of the batch that carry one conditioning."""

    start: int
    stop: int
    role: str
    uuid: object = None
    # (height, width, top, left) in latent pixels if only a part of the picture is run, else None
    area: tuple | None = None

    @property
    def rows(self):
        return slice(self.start, self.stop)


def chunks_of(options, batch, conds):
    """The chunks of a UNet call of `batch` rows.

    options: its transformer_options; conds: the guider's named conditionings ({name: [entry, ...]}), {} if unknown.
    The role comes from the name under which the guider holds the chunk's uuid; where the uuid is unknown, or stands
    under names of both roles (the host copies entries to match areas), from `cond_or_uncond`.
    """
    order = options.get("cond_or_uncond") or [0]
    uuids = options.get("uuids") or [None] * len(order)
    if batch % len(order) or len(uuids) != len(order):
        # rows that nobody explains: one chunk, and nothing that depends on its uuid
        order, uuids = [0], [None]
    size = batch // len(order)
    chunks = []
    for i, (index, uuid) in enumerate(zip(order, uuids, strict=True)):
        by_index = UNCOND if index == 1 else COND
        found = [(_role(name), entry) for name, entries in conds.items() for entry in entries if entry.get("uuid") == uuid]
        roles = {role for role, _ in found}
        role = roles.pop() if uuid is not None and len(roles) == 1 else by_index
        area = next((entry["area"] for r, entry in found if r == role and entry.get("area")), None)
        chunks.append(Chunk(i * size, (i + 1) * size, role, uuid, area))
    return tuple(chunks)


def _role(name):
    return UNCOND if "negative" in name or "uncond" in name else COND
