"""The demo: what each technique does to a picture of the pocket model, beside the same picture without it.

One graph for the server. Each row of the sheet is one technique: what goes in, then the picture without and with it.
"""

SIZE, STEPS, CFG = 128, 12, 3.0


class Graph:
    """An API graph under construction; `rows` are what its pictures show: [(title, [(caption, node id)])]."""

    def __init__(self):
        self.nodes, self.rows = {}, []
        self.model, self.clip, self.vae = self.add("PersonalizationPocketModel", outputs=3)
        self.empty = self.encode("")

    def add(self, kind, outputs=1, **inputs):
        """Adds a node; returns its output, or a tuple of so many."""
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": kind, "inputs": inputs}
        links = tuple([number, slot] for slot in range(outputs))
        return links if outputs != 1 else links[0]

    def encode(self, text):
        return self.add("CLIPTextEncode", clip=self.clip, text=text)

    def latent(self, side=SIZE):
        return self.add("EmptyLatentImage", width=side, height=side, batch_size=1)

    def sampled(self, text, seed, model=None, side=SIZE):
        """The picture of a prompt, by KSampler."""
        samples = self.add(
            "KSampler", model=model or self.model, positive=self.encode(text), negative=self.empty,
            latent_image=self.latent(side), seed=seed, steps=STEPS, cfg=CFG, denoise=1.0, sampler_name="dpmpp_2m",
            scheduler="karras",
        )  # fmt: skip
        return self.decode(samples)

    def decode(self, samples):
        return self.add("VAEDecode", samples=samples, vae=self.vae)

    def sample_picture(self, name):
        """(picture, mask) of one that the pack ships."""
        return self.add("PersonalizationSample", outputs=2, picture=name)

    def row(self, title, **pictures):
        """A row of the sheet: caption = picture; underscores stand for blanks."""
        cells = []
        for caption, picture in pictures.items():
            (number, _) = self.add("SaveImage", images=picture, filename_prefix="demo")
            cells.append((caption.replace("_", " "), number))
        self.rows.append((title, cells))


def graph():
    """The Graph of the whole demo."""
    made = Graph()
    for add in (prompts, golden_noise, references, concepts, image_prompts, sizes):
        add(made)
    return made


def prompts(g):
    g.row(
        "Pocket Model: prompts alone",
        a_dog_on_blue=g.sampled("a dog on a blue background", 31),
        a_small_penguin_on_orange=g.sampled("a small penguin on an orange background", 31),
        fox_left_cake_right=g.sampled("a fox on the left and a cake on the right on a teal background", 31),
    )


def golden_noise(g):
    text, seed = "a cat on the left and a balloon on the right on a green background", 23
    noise = g.add("RandomNoise", noise_seed=seed)
    positive = g.encode(text)
    golden = g.add(
        "PersonalizationRedenoise", noise=noise, model=g.model, positive=positive, negative=g.empty, guidance=CFG,
        inverse_guidance=1.0, steps=10, repeats=1,
    )  # fmt: skip

    def from_noise(start):
        samples, _ = g.add(
            "SamplerCustomAdvanced", outputs=2, noise=start,
            guider=g.add("CFGGuider", model=g.model, positive=positive, negative=g.empty, cfg=CFG),
            sampler=g.add("KSamplerSelect", sampler_name="dpmpp_2m"),
            sigmas=g.add("BasicScheduler", model=g.model, scheduler="karras", steps=STEPS, denoise=1.0),
            latent_image=g.latent(),
        )  # fmt: skip
        return g.decode(samples)

    g.row("Golden Noise (Re-denoise): a cat and a balloon", plain_noise=from_noise(noise), golden=from_noise(golden))


def references(g):
    text, seed = "a heart on a teal background", 3
    picture, mask = g.sample_picture("pocket_heart")
    chain = g.add(
        "PersonalizationReference", image=picture, mask=mask, word="heart", strength=1.0,
        prompt="a heart on a white background",
    )  # fmt: skip
    patched = g.add(
        "PersonalizationMRSA", model=g.model, clip=g.clip, vae=g.vae, references=chain, weight=1.1, blocks="all",
        custom_blocks="", style_fidelity=0.0, start_percent=0.0, end_percent=1.0, reference_noise="fresh",
        reference_seed=0, cache_mb=1024,
    )  # fmt: skip
    g.row(
        "Multi-Reference Self-Attention: this heart, where the word leaves its colours open",
        reference=picture,
        without=g.sampled(text, seed),
        with_it=g.sampled(text, seed, patched),
    )


def half(g, right=False):
    """The mask of a half of the picture."""
    return g.add(
        "PersonalizationBoxMask", x=0.5 if right else 0.0, y=0.0, width=0.5, height=1.0, pixel_width=SIZE,
        pixel_height=SIZE, feather=0.0,
    )  # fmt: skip


def concepts(g):
    text, seed = "a heart on the left and a heart on the right on a yellow background", 6
    positive, stacked, chain = g.encode(text), g.model, {}
    for lora, right in (("heart_150", False), ("heart_330", True)):
        taught = g.add("PersonalizationPocketLoRA", model=g.model, lora=lora, strength=1.0)
        stacked = g.add("PersonalizationPocketLoRA", model=stacked, lora=lora, strength=1.0)
        made = g.add(
            "PersonalizationConcept", model=taught, positive=positive, word="heart", strength=1.0, mask=half(g, right),
            **chain,
        )  # fmt: skip
        chain = {"concepts": made}
    conducted = g.add(
        "PersonalizationConceptConductor", model=g.model, guidance_weight=0.0, guidance_end=0.3, guidance_interval=1,
        custom_factor=1.0, gradient_space="vp", refine_start=0.25, refine_end=0.0, refine_interval=0.025,
        iou_threshold=0.0, kmeans_restarts=100, rect_mask=False, use_loss_mask=False, inversion_steps=0,
        unmatched="rectangle", close_seams=False, cache_mb=1024, **chain,
    )  # fmt: skip
    g.row(
        "Concept Conductor: two LoRAs, a green heart and a pink one",
        both_LoRAs_on_one_model=g.sampled(text, seed, stacked),
        each_in_its_half=g.sampled(text, seed, conducted),
    )


def image_prompts(g):
    text, seed = "a heart on the left and a star on the right on a white background", 11
    shown, chain = {}, {}
    for word, right in (("heart", False), ("star", True)):
        picture, mask = g.sample_picture(f"pocket_{word}")
        shown[f"the_{word}"] = picture
        reference = g.add(
            "PersonalizationReference", image=picture, mask=mask, word=word, strength=1.0, prompt="",
            region=half(g, right), **chain,
        )  # fmt: skip
        chain = {"references": reference}
    patched = g.add(
        "PersonalizationMIPAdapter", model=g.model, clip=g.clip, clip_vision=g.add("PersonalizationPocketVision"),
        adapter=g.add("PersonalizationImageAdapterLoader", adapter_file="pocket: mip_adapter"),
        scale=0.8, merge="weighted", merge_power=1.0, phrase_source="standalone", text_gate=True, prompt="",
        start_percent=0.0, end_percent=1.0, **chain,
    )  # fmt: skip
    g.row(
        "MIP-Adapter: a heart and a star, each in the colours of its picture",
        **shown,
        prompt_alone=g.sampled(text, seed),
        with_pictures=g.sampled(text, seed, patched),
    )


def sizes(g):
    text, seed, side = "a pineapple on a blue background", 0, 64
    adapted = g.add(
        "PersonalizationResAdapter", model=g.model, adapter_set="pocket: resadapter", alpha=1.0, norms="auto",
        norm_strength=1.0, link_norms=False, outputs=2,
    )[0]  # fmt: skip
    g.row(
        "ResAdapter: a pineapple in 64 x 64 pixels, half the size that the model learnt",
        without=g.sampled(text, seed, side=side),
        with_it=g.sampled(text, seed, adapted, side=side),
    )
