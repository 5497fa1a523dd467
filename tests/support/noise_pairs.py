"""Noise pairs to train small NPNets on, collected with a tiny model or made up, and the two nodes for them."""

import folder_paths
from support.models import conditioning, execute
from support.references import draw

SMALL = {"width": 6, "depths": (1, 2, 1, 1), "heads": (1, 2, 3, 6), "vectors": 16, "values": 32}


def collect(model, count=3, seed=0, prompt=1, **inputs):
    """(folder, [positive, negative]) after Collect Noise Pairs."""
    from pack.nodes.golden_noise.npnet_training_node import NoisePairs

    texts = [conditioning(draw(1, 77, 32, seed=prompt)), conditioning(draw(1, 77, 32, seed=9))]
    inputs = {"width": 64, "height": 64, **inputs}
    found = execute(NoisePairs, model=model, positive=texts[0], negative=texts[1], count=count, seed=seed, **inputs)
    return found[0], texts


def make_pairs(count=2, seed=0, side=8):
    """Writes pairs into the default folder, replacing those that are there; returns it."""
    from pack.nodes.files.new_files import write_tensors
    from pack.nodes.files.output_folder import output_folder

    folder = output_folder("npnet_pairs")
    folder.mkdir(exist_ok=True)
    for path in folder.glob("p*.safetensors"):
        path.unlink()
    write_tensors(folder / "prompt_a.safetensors", {"prompt": draw(1, 77, 32, seed=seed)})
    for i in range(count):
        noise = draw(1, 4, side, side, seed=seed + i)
        write_tensors(folder / f"pair_a_{i:02}.safetensors", {"noise": noise, "golden": noise + 0.3})
    return folder


def learn(steps=2, name="mine", **inputs):
    """(network, report) after Train NPNet."""
    from pack.nodes.golden_noise.npnet_training_node import TrainNPNet

    # the list of files is as old as the host's clock can tell
    folder_paths.filename_list_cache.clear()
    inputs = {"batch_size": 2, "learning_rate": 1e-3, **inputs}
    return execute(TrainNPNet, folder="npnet_pairs", file_name=name, steps=steps, **inputs)
