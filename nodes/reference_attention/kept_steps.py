"""How much of a run the bank keeps for the next picture, and how much all of it would need."""

from ..host.bank import bank_of
from ..host.messages import log_info

MIB = 1 << 20


class KeptSteps:
    """What one model of a run asked the bank for, by the sampler's step."""

    def __init__(self):
        # {what the bank calls an entry: (step, bytes)}
        self.asked = {}
        self.bank = None

    def fetch(self, call, names, most):
        """{name: its Entry on the device of a call} of those that the bank has; most: how many copies they may take."""
        self.bank = bank_of(call.base)
        found = self.bank.fetch(names, call.run, call.x.device, most)
        for name, entry in found.items():
            self.asked[name] = call.moment.step, entry.size
        return found

    def put(self, call, name, entry, budget):
        """Keeps a new entry if the budget (bytes) allows."""
        self.asked[name] = call.moment.step, entry.size
        self.bank.put(name, entry, call.run, budget)


def tell_of_kept(run, label, kept, budget):
    """Says at the end of a run how many of its steps fit into a budget (bytes): to the user where not all do."""
    asked, short = {}, set()
    for one in kept:
        asked |= one.asked
        short |= {step for name, (step, _) in one.asked.items() if not one.bank.holds(name)}
    if not asked:
        return
    steps = {step for step, _ in asked.values()}
    need = -(-sum(size for _, size in asked.values()) // MIB)
    if short:
        run.tell(
            f"{label}: {len(steps - short)} of the {len(steps)} steps with references fit into cache_mb "
            f"{budget // MIB}, all of them need {need}; the others are computed again for each picture"
        )
    else:
        log_info(f"{label}: all {len(steps)} steps with references are kept, {need} of cache_mb {budget // MIB}")
