"""Golden Noise as a NOISE of the host, and what it says about itself."""

import comfy.sample
import torch

from ..host.messages import plain
from ..host.node_pictures import running_node
from .golden_noise import LATENT_CHANNELS, check_latent, size_text
from .noise_picture import show_change


class GoldenNoise:
    """A NOISE of the host whose noise is another NOISE's, improved. One object per execution of a node."""

    def __init__(self, noise, improver):
        self.noise = noise
        self.improver = improver
        self._known = None
        self.node = running_node()

    @property
    def seed(self):
        return getattr(self.noise, "seed", 0)

    def generate_noise(self, latent):
        """Unit variance, on the CPU, shape of latent["samples"]."""
        samples = latent["samples"]
        check_latent(samples)
        plain = self.noise.generate_noise(latent)
        if self._known is not None and torch.equal(plain, self._known[0]):
            show_change(*self._known, self.node)
            return self._known[1].clone()

        def draw(side):
            return self.noise.generate_noise({**latent, "samples": samples.new_zeros(*samples.shape[:2], side, side)})

        golden = self.improver(plain, self.seed, draw)
        show_change(plain, golden, self.node)
        return golden

    def report(self):
        """One sentence: what changes in plain noise of this seed at the network's own size."""
        improver, net = self.improver, self.improver.net
        side = net.sizes.side
        drawn = comfy.sample.prepare_noise(torch.zeros(1, LATENT_CHANNELS, side, side), self.seed)
        golden = improver(drawn, self.seed, None)
        # most pictures are of this size: then the work is done already
        self._known = drawn, golden
        change = float((golden - drawn).norm() / drawn.norm())
        return plain(
            f"{net.name} for {net.family}, strength {improver.strength:g}: on {size_text((side, side))} noise of seed "
            f"{self.seed} the standard deviation goes from {float(drawn.std()):.3f} to "
            f"{float(golden.std()):.3f}, {100 * change:.1f} % of the noise changes"
        )
