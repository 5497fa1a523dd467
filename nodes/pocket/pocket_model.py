"""The pocket model as the host's own MODEL, CLIP and VAE."""

import copy
import weakref
from functools import partial

import comfy.model_management as mm
import comfy.sd
import folder_paths
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_patcher import ModelPatcher
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel
from comfy.supported_models import SD15
from comfy.supported_models_base import ClipTarget
from comfy.utils import calculate_parameters

from ..host.devices import with_factory
from .pocket_files import FOLDER, all_tokens, check, read_part, regroup, widen_text_encoder, widen_unet

# the side of the pictures that it was trained on
NATIVE_SIDE = 128
# {folder: what was loaded from it}, for as long as a MODEL, CLIP or VAE of it lives
_LOADED = weakref.WeakValueDictionary()


class _Pocket:
    """The three parts. Each holds on to this, so that a part in use is never loaded a second time."""

    def __init__(self, folder):
        self.model, self.clip, self.vae = _model(folder), _clip(folder), _vae(folder)
        self.model.model.pocket = self.clip.cond_stage_model.pocket = self.vae.first_stage_model.pocket = self


def load_pocket(folder=FOLDER):
    """(MODEL, CLIP, VAE); loaded twice they share their weights."""
    key = str(folder)
    pocket = _LOADED.get(key)
    if pocket is None:
        pocket = _LOADED[key] = _Pocket(folder)
    return pocket.model.clone(), pocket.clip.clone(), pocket.vae


def _model(folder, **settings):
    # settings: in what form a host that makes copies wants it; there is but one
    tensors, unet_config, metadata = read_part("unet", folder)
    tensors, unet_config = widen_unet(tensors, unet_config)
    config = SD15(unet_config)
    # the family's class writes those of the full-size model over them
    config.unet_config.update({name: unet_config[name] for name in ("num_heads", "num_head_channels")})
    device, kinds = mm.get_torch_device(), list(config.supported_inference_dtypes)
    dtype = mm.unet_dtype(model_params=calculate_parameters(tensors), supported_dtypes=kinds)
    config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, device, kinds))
    offload = mm.unet_offload_device()
    model = config.get_model({}, "", device=offload)
    check(model.diffusion_model, tensors, "unet")
    regroup(model.diffusion_model, int(metadata["groups"]))
    model.load_model_weights(tensors, "")
    model.native_side = NATIVE_SIDE
    return with_factory(ModelPatcher(model, load_device=device, offload_device=offload), _model, folder)


def _clip(folder, **settings):
    tensors, config, metadata = read_part("text_encoder", folder)
    tensors, config = widen_text_encoder(all_tokens(tensors, float(metadata["deviation"])), config)
    target = ClipTarget(SD1Tokenizer, SD1ClipModel)
    target.params = {
        "clip_model": partial(SDClipModel, textmodel_json_config=config, return_projected_pooled=False),
    }
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=calculate_parameters(tensors),
        **settings,
    )
    check(clip.cond_stage_model.clip_l.transformer, tensors, "text_encoder")
    clip.load_sd(tensors)
    with_factory(clip.patcher, _clip_patcher, folder)
    return clip


def _clip_patcher(folder, **settings):
    return _clip(folder, **settings).patcher


def _vae(folder):
    tensors, config, metadata = read_part("autoencoder", folder)
    # the host would only log what is missing
    check(AutoencoderKL(**copy.deepcopy(config)), tensors, "autoencoder")
    vae = comfy.sd.VAE(sd=dict(tensors), config={"params": config})
    regroup(vae.first_stage_model, int(metadata["groups"]))
    with_factory(vae.patcher, _vae_patcher, folder)
    return vae


def _vae_patcher(folder, **settings):
    return _vae(folder).patcher
