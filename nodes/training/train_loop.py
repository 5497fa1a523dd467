"""The steps of a training one after another: progress, previews, the state kept, memory that runs out."""

import math
import time

import comfy.model_management as mm
import comfy.utils
import torch

from ...kernels.training_losses import degraded
from ..host.loss_curve import LossCurve
from ..host.messages import input_error, show_progress, warn_user
from ..host.seeded import seeded_noise
from .train_memory import memory_said
from .train_previews import as_shown

# How much of the running loss stays at each step; after how many steps the device is waited for.
_STAYS, _WAIT = 0.98, 20
# Steps for which degraded pictures are the same.
_REFRESH = 10


class TrainLoop:
    """Runs a Trainer on the batches of a BatchSource."""

    def __init__(self, trainer, load, batches, state, vae_encode, preview):
        """load(): loads the trainer's networks; state: a TrainedState; vae_encode: pixels (1, S, S, 3) -> latent;
        preview() -> one picture.
        """
        self.trainer, self.load, self.batches, self.state = trainer, load, batches, state
        self.vae_encode, self.preview = vae_encode, preview
        self.previews, self.first, self.running = [], None, None
        self.curve, self._waiting = None, []
        self._halved = self._fresh = False

    def run(self, done, steps, save_every, preview_every):
        """Trains up to a number of steps and returns how many were done; the state is kept where it ends before."""
        progress, began, at = comfy.utils.ProgressBar(steps), time.monotonic(), done
        self.steps = steps
        with self.trainer:
            try:
                while done < steps:
                    mm.throw_exception_if_processing_interrupted()
                    if preview_every and done and done % preview_every == 0:
                        self._draw()
                    self._degrade(done, steps)
                    self._one_step(done)
                    done += 1
                    if done % _WAIT == 0 or done == steps or self._on_cpu:
                        self._wait(done)
                    self._show(progress, done, (done - at) / (time.monotonic() - began + 1e-9))
                    if save_every and done % save_every == 0 and done < steps:
                        self._wait(done)
                        self.state.keep(done)
                self._draw()
            except BaseException:
                if done > at:
                    self.state.keep(done)
                raise
        self.state.keep(done)
        if self.curve is not None:
            self.curve.show()
        return done

    def losses(self):
        """Words on the losses; "" where nothing was left to train."""
        return "" if self.running is None else f": loss {self.first:.4f} -> {self.running:.4f}"

    @property
    def _on_cpu(self):
        return self.trainer.unet.device.type == "cpu"

    def _one_step(self, step):
        while not self._fits(step):
            # outside of the handler, which holds on to what filled the memory
            if self._halved:
                raise input_error(
                    f"out of memory at step {step}: it takes {self._needed()}; lower size, batch_size or rank"
                )
            self._less_memory()

    def _fits(self, step):
        try:
            self._accumulated(step)
        except mm.OOM_EXCEPTION:
            return False
        return True

    def _accumulated(self, step):
        self.trainer.optimizer.adam.zero_grad(set_to_none=True)
        found = []
        for part in range(self.trainer.optimizer.accumulate):
            found.append(self.trainer.step(self.batches.batch(step, part))["loss"])
        self._waiting.append(torch.stack(found).mean())
        # a loss that is no number must not reach what was learned: seen at once where that costs nothing
        if self._on_cpu:
            self._check(step)
        self.trainer.update()

    def _less_memory(self):
        optimizer, batches = self.trainer.optimizer, self.batches
        self._halved = True
        mm.soft_empty_cache()
        with self.trainer.paused(self.load):
            self.trainer.checkpoint = True
        if not batches.settings.balance and batches.batch_size > 1:
            batches.batch_size = (batches.batch_size + 1) // 2
            optimizer.accumulate *= 2
        warn_user(
            "out of memory: the training continues with checkpointing, half the batch size and twice the accumulation "
            "steps (slower)"
        )

    def _needed(self):
        side = self.batches.sources[0].places[0].latent.shape[-1]
        return memory_said(self.trainer.unet.base, self.batches.rows, side)

    def _check(self, step):
        if not torch.isfinite(self._waiting[-1]):
            raise input_error(
                f"the loss at step {step} is NaN or infinite; lower the learning rate and choose another file_name "
                "(the last good state stays)"
            )

    def _wait(self, done):
        waited, self._waiting = self._waiting, []
        for step, loss in enumerate(torch.stack(waited).tolist() if waited else (), done - len(waited)):
            if not math.isfinite(loss):
                raise input_error(
                    f"the loss at step {step} is NaN or infinite; lower the learning rate (the last good state stays)"
                )
            if self.running is None:
                self.first = self.running = loss
                self.curve = LossCurve(loss, "start")
            self.running = _STAYS * self.running + (1 - _STAYS) * loss
            self.curve.add(step, loss)

    def _show(self, progress, done, pace):
        shown = as_shown(self.previews[-1]) if self._fresh else None
        self._fresh = False
        progress.update_absolute(done, self.steps, shown)
        if self.running is not None:
            left = (self.steps - done) / pace / 60
            show_progress(
                f"step {done} of {self.steps}, loss {self.running:.4f}, {pace:.2f} steps/s, {left:.1f} min left"
            )

    def _draw(self):
        with self.trainer.paused(self.load):
            self.previews.append(self.preview())
            self._fresh = True

    def _degrade(self, step, steps):
        """Pictures whose surroundings are noise, new ones now and then (MagicTailor)."""
        settings = self.batches.settings
        if not settings.degrade or (step % _REFRESH and self.batches.instead):
            return
        first = step - step % _REFRESH
        with self.trainer.paused(self.load):
            self.batches.instead = {}
            for near in range(first, min(steps, first + _REFRESH)):
                for picture, number in self._places(near):
                    if (picture, number) not in self.batches.instead:
                        latent = self._degraded(picture, number, first, steps, settings.degrade)
                        self.batches.instead[picture, number] = latent

    def _places(self, step):
        parts = range(self.trainer.optimizer.accumulate)
        return (place for part in parts for place in self.batches.places(step, part))

    def _degraded(self, picture, number, step, steps, alpha):
        place = self.batches.sources[picture].places[number]
        pixels = 2 * place.pixels.movedim(-1, 1) - 1
        masks = place.whole[:1][None] if len(place.whole) else torch.ones_like(pixels[:, :1])
        noise = seeded_noise(f"{self.batches.seed}/{step}/degrade {picture} {number}", tuple(pixels.shape))
        made = degraded(pixels, masks, noise, step, steps, alpha)
        return self.vae_encode((made.movedim(1, -1) + 1) / 2)
