"""A training's state between runs, brakes and averages included; and whether its files are its own."""

from pathlib import Path

import folder_paths
import torch

from ..files.new_files import clear_leftovers, try_writing
from ..files.training_state import TrainingState, replaces
from ..host.content_keys import digest
from .train_request import text_bytes
from .trained_files import TRAINED_BY

_FOLDER = "personalization_training"
# The state has the weights and two moments of each.
_STATE_SIZE = 3


class TrainedState:
    """The state of a Trainer in one file of ComfyUI's output folder."""

    def __init__(self, stem, trainer, identity):
        self.trainer = trainer
        path = Path(folder_paths.get_output_directory()) / _FOLDER / f"{stem}.training"
        with torch.inference_mode(False):
            tensors = {**trainer.tensors(), **self._beside(trainer)}
        self.file = TrainingState(path, tensors, trainer.optimizer.adam, identity)
        self.mark = f"{stem}/{digest(*[text_bytes(text) for text in identity.values()]).hex()}"

    def _beside(self, trainer):
        """{name: tensor} of what is no learned tensor and yet decides how a training goes on."""
        # whether the words have stopped, whether there is an average, the scale of a loss in half precision and its
        # good steps, and in how many steps only words learn
        self._flags, self._average = torch.zeros(5, dtype=torch.float64), {}
        if trainer.losses.noise == "balance":
            self._average = {name: torch.zeros_like(t.detach()) for name, t in trainer.learned.lora_tensors().items()}
        return {"flags": self._flags, **{f"average/{name}": t for name, t in self._average.items()}}

    def read(self):
        """Takes over what the file holds; returns how many steps were done."""
        with torch.inference_mode(False):
            done = self.file.read()
            if done:
                stopped, averaged, scale, good, alone = self._flags.tolist()
                optimizer = self.trainer.optimizer
                optimizer.done, optimizer.stopped = done, bool(stopped)
                optimizer.scale, optimizer.good = scale, int(good)
                if done > alone:
                    # what has begun to learn does not stop again, however long the whole training is now
                    self.trainer.learn_all_from(int(alone))
                if averaged:
                    self.trainer.average = {name: t.clone() for name, t in self._average.items()}
        return done

    def keep(self, done):
        """Writes the file, whatever mode the node runs in."""
        trainer = self.trainer
        with torch.inference_mode(False):
            optimizer = trainer.optimizer
            flags = optimizer.stopped, trainer.average is not None, optimizer.scale, optimizer.good
            self._flags.copy_(torch.tensor([*map(float, flags), trainer.losses.warm_up], dtype=torch.float64))
            for name, tensor in self._average.items():
                if trainer.average is not None:
                    tensor.copy_(trainer.average[name])
            self.file.keep(done)

    def check_files(self, files):
        """ValueError before the first step for files that another wrote, and for a disk that does not take them."""
        for path, tensors in files.items():
            self.replaces(path)
            try_writing(path, sum(t.numel() * t.element_size() for t in tensors.values()))
            clear_leftovers(path.parent)
        try_writing(self.file.path, _STATE_SIZE * self.file.bytes_of_network)
        clear_leftovers(self.file.path.parent)

    def replaces(self, path):
        """Whether a file of this training's is there; ValueError for one that is somebody's."""
        return replaces(path, lambda metadata: metadata.get(TRAINED_BY) == self.mark)
