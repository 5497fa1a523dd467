"""The batches of a training: what step s learns from follows from its seed and s alone."""

import itertools

import torch

from ..host.latents import LATENT_STEP
from ..host.seeded import seeded_noise, seeded_shares
from .training_batch import TrainingBatch

# Numbers that are drawn at once: a picture, a place, the order of a caption, the timesteps of a batch.
_DRAWN = 512


class BatchSource:
    """Draws TrainingBatches from SourcePictures."""

    def __init__(self, sources, settings, seed, class_pictures=None, scene=False, reference=()):
        """class_pictures: (latents (n, 4, h, w) in the model's units, their prompt) or None; scene: whether a step is
        about some of the things of one picture; reference: [(prompt, plain prompt, word)] to choose a context from.
        """
        self.sources, self.settings, self.seed = sources, settings, seed
        self.class_pictures, self.scene, self.reference = class_pictures, scene, reference
        self.batch_size = len(sources) if settings.balance else settings.batch_size
        # {(picture, place): latent} in place of the first ones, for as long as they are degraded
        self.instead = {}

    def batch(self, step, part=0):
        """The batch of a step; of several that count as one, by its number."""
        name = f"{self.seed}/{step}/{part}"
        rows = []
        for number in range(self.batch_size):
            # all rows of a scene are of as many things as the first
            things = len(rows[0][4]) if rows and self.scene else None
            rows.append(self._row(number, _shares(f"{name}/{number}"), things))
        shares = _shares(name)
        latents = torch.stack([latent for latent, *_ in rows])
        prompts, masks, regions, shown = (tuple(row[place] for row in rows) for place in range(1, 5))
        concepts, sizes = tuple(row[5] for row in rows), [row[6] for row in rows]
        of_class = self._class(name, shares)
        if of_class:
            side = LATENT_STEP * latents.shape[-1]
            sizes += [(side, side, 0, 0, side, side)] * len(of_class["class_latents"])
        # a picture without a mask keeps the others' words to theirs
        held = [own for own in regions if len(own)]
        return TrainingBatch(
            latents,
            self._noise(f"{name}/noise", latents.shape),
            self._timesteps(len(rows), shares),
            prompts,
            torch.stack(masks) if masks[0] is not None else None,
            torch.stack(held) if held else None,
            tuple(words if len(own) else () for words, own in zip(shown, regions, strict=True)) if held else (),
            concepts,
            torch.tensor(sizes),
            reference=self._pick(self.reference, shares) if self.reference else (),
            **of_class,
        )

    @property
    def rows(self):
        """How many pictures a step's batch has, those of the class included."""
        has_class = self.class_pictures is not None and self.settings.prior_weight > 0
        return self.batch_size * (1 + has_class)

    def places(self, step, part=0):
        """[(number of the picture, number of its place)] of a step's batch."""
        name = f"{self.seed}/{step}/{part}"
        return [self._chosen(number, _shares(f"{name}/{number}")) for number in range(self.batch_size)]

    def _chosen(self, number, shares):
        picture = number if self.settings.balance else int(next(shares) * len(self.sources))
        place = int(next(shares) * len(self.sources[picture].places))
        return picture, place

    def _row(self, number, shares, things=None):
        picture, number = self._chosen(number, shares)
        source = self.sources[picture]
        place = source.places[number]
        latent = self.instead.get((picture, number), place.latent)
        if self.scene:
            return self._scene_row(source, place, shares, things)
        prompt = source.captions.drawn(source.number, lambda: next(shares), shuffled=self.settings.maps == "levels")
        region = place.masks[:1] if len(place.masks) else place.shown
        mask = {"none": None, "region": region, "picture": place.shown}[self.settings.mask_loss]
        # levels compare both words with one mask; the quarter's maps each with their own
        regions = region if self.settings.maps == "levels" else place.whole[:1]
        words = source.words if self.settings.maps == "levels" else source.words[:1]
        return latent, prompt, mask, regions if self.settings.maps else (), words, source.concept, place.sizes

    def _scene_row(self, source, place, shares, things=None):
        """Of some of the things, so many or as many as are drawn, in the order drawn."""
        left = list(range(len(source.words)))
        count = 1 + int(next(shares) * len(left))
        chosen = [left.pop(int(next(shares) * len(left))) for _ in range(things or count)]
        words = tuple(source.words[one] for one in chosen)
        prompt = f"a photo of {' and '.join(words)}"
        region = place.masks[chosen].amax(0, keepdim=True)
        mask = {"none": None, "region": region, "picture": place.shown}[self.settings.mask_loss]
        return place.latent, prompt, mask, place.whole[chosen], words, 0, place.sizes

    def _class(self, name, shares):
        if self.class_pictures is None or not self.settings.prior_weight:
            return {}
        latents, prompt = self.class_pictures
        chosen = torch.stack([self._pick(latents, shares) for _ in range(self.batch_size)])
        return {
            "class_latents": chosen,
            "class_noise": self._noise(f"{name}/class noise", chosen.shape),
            "class_timesteps": self._timesteps(len(chosen), shares),
            "class_prompts": (prompt,) * len(chosen),
        }

    def _noise(self, name, shape):
        noise = seeded_noise(name, shape)
        if self.settings.noise_offset:
            noise = noise + self.settings.noise_offset * seeded_noise(f"{name} offset", (*shape[:2], 1, 1))
        return noise

    def _timesteps(self, count, shares):
        low, high = self.settings.t_min, self.settings.t_max
        return torch.tensor([low + int(next(shares) * (high - low + 1)) for _ in range(count)])

    @staticmethod
    def _pick(several, shares):
        return several[int(next(shares) * len(several))]


def _shares(name):
    """Numbers in 0..1 by a name, as many as are asked for."""
    for block in itertools.count():
        # a name of its own: a row's is the batch's and its number
        own = f"{name}/more {block}" if block else name
        yield from seeded_shares(own, (_DRAWN,)).double().tolist()
