"""Lines of the product and how to break them: (file, old text, new text, the tests that must notice)."""

CONDUCTOR = "tests/concept_conductor/test_concept_conductor.py"
CONDUCTOR_GOLDEN = "tests/concept_conductor/test_concept_conductor_golden.py"
CONDUCTOR_NODE = "tests/concept_conductor/test_concept_conductor_node.py"
CONCEPTS = "tests/composition/test_concepts.py"
MRSA = "tests/reference_attention/test_mrsa.py"
STATE = "tests/composition/test_state.py"
EVALUATIONS = "tests/composition/test_evaluations.py"
DEVICES = "tests/composition/test_devices.py"
FLAT_ENTRIES = "tests/host/test_flat_entries.py"
CHOSEN = "tests/composition/test_chosen_device.py"
PROMPTS = "tests/image_prompts/test_mip_adapter.py"
PHRASES = "tests/image_prompts/test_phrases.py"
TOKENS = "tests/image_adapters/test_image_tokens.py"
LAYOUT = "tests/inversion/test_layout_picture.py"
ADAPTERS = "tests/row_adapters/test_row_adapters.py"
WORDS = "tests/text_contexts/test_concept_words.py"
EDLORA = "tests/text_contexts/test_edlora.py"
RESADAPTER = "tests/resadapter/test_resadapter.py"
RESOLUTION = "tests/resadapter/test_resolution.py"
NOISE = "tests/golden_noise/test_golden_noise_node.py"
SAMPLING = "tests/golden_noise/test_golden_noise_sampling.py"
TRAINING = "tests/golden_noise/test_npnet_training_node.py"

KERNELS = [
    (
        "kernels/reference_attention.py",
        "(exact - rounded.float()).to(dtype)",
        "torch.zeros_like(rounded)",
        "tests/kernels/test_reference_attention.py",
    ),
    ("kernels/masks.py", "(position + 1e-9).floor()", "position.floor()", "tests/kernels/test_masks.py"),
    (
        "kernels/masks.py",
        "math.floor(start * length + 1e-6), math.ceil(stop * length - 1e-6)",
        "math.floor(start * length), math.ceil(stop * length)",
        "tests/kernels/test_masks.py",
    ),
    (
        "kernels/masks.py",
        "length if start > 0 else",
        "length if start >= 0 else",
        "tests/kernels/test_masks.py",
    ),
    ("kernels/masks.py", "feather * min(size)", "feather * max(size)", "tests/kernels/test_masks.py"),
    (
        "kernels/mask_pyramid.py",
        "return coverage(mask, size) > 0.5",
        "return coverage(mask, size) >= 0.5",
        "tests/kernels/test_mask_pyramid.py",
    ),
    (
        "kernels/mask_pyramid.py",
        "(covered.sum(0) > 0.5)",
        "(covered.sum(0) >= 0.5)",
        "tests/kernels/test_mask_pyramid.py",
    ),
    (
        "kernels/mask_refinement.py",
        "if iou > best_iou:",
        "if iou >= best_iou:",
        "tests/kernels/test_mask_refinement.py",
    ),
    (
        "kernels/mask_refinement.py",
        "best_iou >= threshold else",
        "best_iou > threshold else",
        "tests/kernels/test_mask_refinement.py",
    ),
    (
        "kernels/mask_refinement.py",
        "torch.where(union.sum(0) > 1, old, union)",
        "union",
        "tests/kernels/test_mask_refinement.py",
    ),
    (
        "kernels/attention_map.py",
        "k_row[:, head].float().mT * scale",
        "k_row[:, head].mT.mul(scale).float()",
        "tests/kernels/test_attention_map.py",
    ),
    (
        "kernels/feature_fusion.py",
        "zip(features, masks, strict=True)",
        "zip(features[::-1], masks[::-1], strict=True)",
        "tests/kernels/test_feature_fusion.py",
    ),
    (
        "kernels/image_prompt_attention.py",
        "gate / gate.mean(1, keepdim=True, dtype=torch.float32)",
        "gate / gate.mean()",
        "tests/kernels/test_image_prompt_attention.py",
    ),
    (
        "kernels/object_shares.py",
        ".softmax(1) * regions.amax(0)",
        ".softmax(1) * regions.mean(0)",
        "tests/kernels/test_image_prompt_attention.py",
    ),
    (
        "kernels/object_shares.py",
        "regions.sum(0).clamp(min=torch.finfo(torch.float32).tiny)",
        "regions.sum(0)",
        "tests/kernels/test_image_prompt_attention.py",
    ),
    (
        "kernels/object_shares.py",
        "regions.log().clamp(min=NEVER)).softmax",
        "regions.log()).softmax",
        "tests/kernels/test_image_prompt_attention.py",
    ),
    (
        "kernels/kmeans.py",
        "torch.where(counts > 0, means, centres)",
        "means",
        "tests/kernels/test_kmeans.py",
    ),
    ("kernels/kmeans.py", "distances.sum(-1).argmin()", "distances.sum(-1).argmax()", "tests/kernels/test_kmeans.py"),
    (
        "kernels/layout_guidance.py",
        "squares.sum(1).mean((1, 2))",
        "squares.mean(1).mean((1, 2))",
        "tests/kernels/test_layout_guidance.py",
    ),
    (
        "kernels/row_adapters.py",
        ' and tuple(geometry.get("stride", (1, 1))) == (1, 1)',
        "",
        "tests/kernels/test_row_adapters.py",
    ),
    (
        "kernels/row_adapters.py",
        " and not any(_padding(geometry))",
        "",
        "tests/kernels/test_row_adapters.py",
    ),
    (
        "kernels/noise_prompt/prompts.py",
        "torch.arange(batch) % prompt.shape[0]",
        "torch.arange(batch).clamp(max=prompt.shape[0] - 1)",
        "tests/kernels/test_noise_prompt.py",
    ),
    (
        "kernels/noise_prompt/tiles.py",
        "(first + second + side - 1) // 2 + 1",
        "(first + second + side) // 2",
        "tests/kernels/test_noise_prompt.py",
    ),
    (
        "kernels/noise_prompt/swin.py",
        "min(height, width) > WINDOW",
        "min(height, width) >= WINDOW",
        "tests/kernels/test_noise_prompt.py",
    ),
    (
        "kernels/noise_prompt/redenoise.py",
        "math.sqrt(1 + sigma0**2)",
        "math.sqrt(1 + sigma1**2)",
        "tests/kernels/test_noise_prompt.py",
    ),
    ("kernels/named_weights.py", "EPS = 1e-5", "EPS = 1e-3", "tests/kernels/test_image_projection.py"),
]

HOST = [
    (
        "nodes/host/frames.py",
        "        return None\n    top, left",
        "        return WHOLE\n    top, left",
        "tests/host/test_frames.py",
    ),
    ("nodes/host/attention.py", "in QUANTIZED:", "in ():", "tests/host/test_attention.py"),
    (
        "nodes/host/content_keys.py",
        "tuple(_identity(one) for one in injections)",
        "()",
        f"{STATE} -k cached_keys_are_those_of_the_modules",
    ),
    (
        "nodes/host/content_keys.py",
        "tuple((name, _identity(value)) for name, value in replaced)",
        "()",
        f"{STATE} -k cached_keys_are_those_of_the_modules",
    ),
    (
        "nodes/host/hooked_weights.py",
        "(hook.hook_ref, hook.strength) for",
        "hook.hook_ref for",
        "tests/host/test_content_keys.py",
    ),
    (
        "nodes/host/attach.py",
        "sorted(techniques.values(), key=lambda t: t.order)",
        "techniques.values()",
        "tests/host/test_attach.py",
    ),
    (
        "nodes/host/moved_latents.py",
        "shift * (ratio / (1 - ratio))",
        "shift * ratio",
        "tests/concept_conductor/test_concept_state.py -k mask",
    ),
    (
        "nodes/host/attach.py",
        "for technique in reversed(self.techniques):",
        "for technique in self.techniques:",
        "tests/host/test_attach.py",
    ),
    ("nodes/host/attach.py", "Innermost(attached.around_conds)", "attached.around_conds", EVALUATIONS),
    (
        "nodes/host/innermost.py",
        "{key: standing[key], **standing}",
        "standing",
        EVALUATIONS,
    ),
    ("nodes/host/bank.py", "                held.run = run\n", "", "tests/host/test_bank.py"),
    ("nodes/host/bank.py", "key not in self._held and self", "self", "tests/host/test_bank.py"),
    ("nodes/host/flat_entries.py", "            mark.hold_back()\n", "            pass\n", FLAT_ENTRIES),
    (
        "nodes/host/flat_entries.py",
        "            if other is not lane:\n                mark.wait()\n",
        "            pass\n",
        FLAT_ENTRIES,
    ),
    ("nodes/host/flat_entries.py", "    for mark in list(marks.values()):\n        mark.wait()\n", "", FLAT_ENTRIES),
    ("nodes/host/flat_entries.py", "parts.sort(key=lambda one: one[0])", "pass", FLAT_ENTRIES),
    (
        "nodes/reference_attention/kept_steps.py",
        "if not one.bank.holds(name)",
        "if one.bank.holds(name)",
        "tests/reference_attention/test_kept_references.py -k does_not_fit",
    ),
    ("nodes/host/blocks.py", "-(-side // 2) for side", "side // 2 for side", "tests/host/test_blocks.py"),
    ("nodes/host/blocks.py", "keys[(len(keys) - 1) // 2]", "keys[len(keys) // 2]", "tests/host/test_blocks.py"),
    ("nodes/host/blocks.py", "max(first, last) >= count", "max(first, last) > count", "tests/host/test_blocks.py"),
    (
        "nodes/host/calls.py",
        "[patch, *there] if first else [*there, patch]",
        "[*there, patch] if first else [patch, *there]",
        f"{EDLORA} -k beside_patches",
    ),
    (
        "nodes/host/calls.py",
        "standing.get(block, standing.get(block[:2]))",
        "standing.get(block)",
        "tests/composition/test_patches.py",
    ),
    (
        "nodes/host/latents.py",
        "scale = min(height / wanted[0], width / wanted[1])",
        "scale = max(height / wanted[0], width / wanted[1])",
        f"{LAYOUT} -k fitted",
    ),
    ("nodes/host/latents.py", "mask.float().clamp(0, 1)", "mask.float()", "tests/host/test_latents.py"),
    (
        "nodes/host/layered_prompts.py",
        "return layers + (head - plain)",
        "return layers",
        f"{EDLORA} -k plain_context",
    ),
    (
        "nodes/host/layered_prompts.py",
        "into.shape[1] // own.shape[0], 1",
        "1, 1",
        f"{EDLORA} -k other_lengths",
    ),
    (
        "nodes/host/contexts.py",
        "bisect_right(self.borders, timestep)",
        "bisect_right(self.borders, timestep + 1)",
        "tests/text_contexts/test_context_router.py -k plain_context",
    ),
    (
        "nodes/host/contexts.py",
        "return self.keys, self.borders, self.values",
        "return self.keys, self.values",
        "tests/text_contexts/test_context_router.py -k told_apart",
    ),
    ("nodes/host/rows.py", "if _role(name) == role and entry", "if entry", "tests/host/test_rows.py"),
    (
        "nodes/host/rows.py",
        "roles.pop() if len(roles) == 1 else",
        "roles.pop() if roles else",
        "tests/host/test_rows.py",
    ),
    (
        "nodes/host/run.py",
        "schedule[min(moment.step + 1, len(schedule) - 1)]",
        "schedule[moment.step]",
        "tests/concept_conductor/test_concept_state.py -k mask",
    ),
    (
        "nodes/host/run_records.py",
        "(*kept, (result, record))[-KEPT_RUNS:]",
        "((result, record),)",
        f"{PROMPTS} -k maps",
    ),
    (
        "nodes/host/text_rows.py",
        "common <= REPEATS * min(counts)",
        "common <= REPEATS * max(counts)",
        "tests/host/test_text_rows.py",
    ),
    ("nodes/host/when.py", "start >= sigma * (1 - ROUNDING)", "start >= sigma", "tests/host/test_when.py"),
    ("nodes/host/when.py", "<= moment.step_sigma <=", "<= moment.sigma <=", "tests/host/test_when.py"),
    (
        "nodes/host/unet_inputs.py",
        '{"width": width, "height": height,',
        '{"width": height, "height": width,',
        "tests/host/test_unet_inputs.py",
    ),
    ("nodes/host/families.py", "return own or NATIVE", "return NATIVE", "tests/pocket/test_pocket_model.py -k sd15"),
    ("nodes/host/panels.py", "* 255).round()", "* 255)", "tests/host/test_panels.py"),
    (
        "nodes/host/gradients.py",
        "tensor.untyped_storage(), tensor.storage_offset()",
        "tensor.untyped_storage(), 0",
        "tests/host/test_gradients.py",
    ),
]

CONCEPT_CONDUCTOR = [
    (
        "nodes/concept_conductor/guided_steps.py",
        " or number in self._done",
        "",
        "tests/latent_guidance/test_own_steps.py -k other_packs",
    ),
    (
        "nodes/host/picture_rows.py",
        "    if dimension == 0 and",
        "    if dimension == 7 and",
        "tests/host/test_picture_rows.py -k windows",
    ),
    (
        "nodes/concept_conductor/concept_masks.py",
        "found[:, self._pictures]",
        "found[:, : len(self._pictures)]",
        "tests/composition/test_windows.py -k belong_to_frames",
    ),
    (
        "nodes/concept_conductor/concept_masks.py",
        "self._custom.clone(), self._base.clone()",
        "self._custom, self._base",
        "tests/concept_conductor/test_concept_masks.py -k goes_on",
    ),
    (
        "nodes/concept_conductor/concept_masks.py",
        "self._masks.first[:, None] if unknown else current",
        "current[:, :1] if unknown else current",
        "tests/concept_conductor/test_concept_masks.py -k unknown_pictures",
    ),
    (
        "nodes/host/progress.py",
        "0.0 if whole else scale.share(schedule[0])",
        "0.0",
        "tests/host/test_progress.py -k half_denoise",
    ),
    (
        "nodes/concept_conductor/concept_conductor.py",
        "conducting.masks.go_on(before.state)",
        "pass",
        "tests/composition/test_parts.py -k masks_go_on",
    ),
    (
        "nodes/latent_guidance/own_steps.py",
        "if one[1] is x]",
        "]",
        "tests/latent_guidance/test_own_steps.py -k uni_pc",
    ),
    (
        "nodes/latent_guidance/step_bound.py",
        "flatten(1)",
        "flatten(0)[None]",
        "tests/latent_guidance/test_step_bound.py -k by_itself",
    ),
    (
        "nodes/concept_conductor/layout_steps.py",
        "factor * len(path.concepts)",
        "factor",
        f"{CONDUCTOR_GOLDEN} -k guidance_and_injection",
    ),
    (
        "nodes/host/rows.py",
        "sigma <= start) and",
        "sigma >= start) and",
        f"{CONDUCTOR} -k prompt_that_acts",
    ),
    (
        "nodes/concept_conductor/layout_steps.py",
        "masks.first_at(grid, device).sum(0).float()",
        "masks.first_at(grid, device).any(0).float()",
        f"{CONDUCTOR} -k several_masks",
    ),
    (
        "nodes/concept_conductor/concept_masks.py",
        "step > self._step:",
        "step >= self._step:",
        f"{CONDUCTOR} -k refined_masks_hold",
    ),
    (
        "nodes/concept_conductor/concept_masks.py",
        "range(self.count + 1, 2 * self.count + 2)",
        "range(self.count + 1, 2 * self.count + 1)",
        "tests/concept_conductor/test_concept_masks.py",
    ),
    (
        "nodes/concept_conductor/conductor_run.py",
        "inside and not (progress.before + step) % max(1, round(settings.refine_interval * progress.total))",
        "inside",
        f"{CONDUCTOR} -k published_200",
    ),
    (
        "nodes/concept_conductor/conductor_run.py",
        "settings.refine_start - SHARE_ROUNDING <= done",
        "settings.refine_start < done",
        f"{CONDUCTOR} -k windows",
    ),
    (
        "nodes/concept_conductor/concept_fusion.py",
        "masks[list(path.concepts)].any(1).any(0)",
        "masks[list(path.concepts)[:1]].any(1).any(0)",
        f"{CONDUCTOR} -k share_a_path",
    ),
    (
        "nodes/concept_conductor/concept_fusion.py",
        "module_of(options)[1] <= last[1]",
        "module_of(options)[1] < last[1]",
        f"{CONDUCTOR} -k last_attention or as_together",
    ),
    (
        "nodes/concept_conductor/concept_control.py",
        " * input_root(call.base.model_sampling, sigma)",
        "",
        f"{CONCEPTS} -k controlnet",
    ),
    (
        "nodes/host/unet_inputs.py",
        "base.memory_required([rows, *shape[1:]]) * 1.5",
        "base.memory_required([rows, *shape[1:]])",
        f"{CONDUCTOR} -k asked_for",
    ),
    (
        "nodes/concept_conductor/mask_pictures.py",
        "min(number, record.end.shape[1] - 1)",
        "0",
        f"{CONDUCTOR_NODE} -k its_own_masks",
    ),
    (
        "nodes/concept_conductor/concept_paths.py",
        "return NEGATIVE if chunk.name == NEGATIVE else None",
        "return None",
        f"{CONCEPTS} -k paths_alone",
    ),
    (
        "nodes/concept_conductor/concept_paths.py",
        "return NEGATIVE if chunk.name == NEGATIVE else None",
        "return NEGATIVE",
        "tests/composition/test_graphs.py -k empty_prompt",
    ),
    (
        "nodes/concept_conductor/concept_conductor.py",
        "return len(self.paths) * noise_shape[0]",
        "return 0",
        f"{CONDUCTOR} -k is_announced",
    ),
]

REFERENCES = [
    (
        "nodes/references/reference_views.py",
        "one.min() < one.max()",
        "one.any()",
        "tests/references/test_references_node.py",
    ),
    (
        "nodes/references/reference_views.py",
        "torch.stack(regions).amax(0)",
        "torch.stack(regions).mean(0)",
        "tests/references/test_references_node.py",
    ),
    (
        "nodes/references/reference_views.py",
        "(top / size[0], left / size[1], (top + kept[0]) / size[0], (left + kept[1]) / size[1])",
        "(top / size[0], left / size[1], kept[0] / size[0], kept[1] / size[1])",
        "tests/references/test_references_node.py",
    ),
    (
        "nodes/reference_attention/reference_pass.py",
        "while rows > 1 and",
        "while False and",
        f"{MRSA} -k little_memory",
    ),
    (
        "nodes/reference_attention/mrsa.py",
        "first=first + member.first",
        "first=member.first",
        f"{STATE} -k two_nodes",
    ),
    (
        "nodes/reference_attention/reference_settings.py",
        "max(0.0, min(1.0, self.style_fidelity))",
        "self.style_fidelity",
        f"{MRSA} -k is_a_share",
    ),
    (
        "nodes/reference_attention/mrsa_settings.py",
        "weight = max(-WEIGHT_LIMIT, min(WEIGHT_LIMIT, settings.weight))",
        "weight = settings.weight",
        f"{MRSA} -k beyond_all_sense",
    ),
    (
        "nodes/reference_attention/reference_rows.py",
        "reference.prompt or reference.word",
        "reference.word or reference.prompt",
        f"{MRSA} -k told_by",
    ),
    (
        "nodes/reference_attention/reference_branch.py",
        "(1 - fidelity) * (attend",
        "fidelity * (attend",
        f"{MRSA} -k fidelity",
    ),
]

ON_DEVICES = [
    (
        "nodes/host/run.py",
        "options[RUNNING].base if RUNNING in options else",
        "",
        f"{DEVICES} -k weights_of_its_own and cards",
    ),
    (
        "nodes/host/run.py",
        "if (name, base) not in self._states",
        "base = None\n            if (name, base) not in self._states",
        f"{DEVICES} -k image_prompts and cards",
    ),
    (
        "nodes/host/attach.py",
        "[beside(model, one) for t in attached",
        "[one for t in attached",
        f"{CHOSEN} -k further or comes_along",
    ),
    ("nodes/host/attach.py", "[beside(model, one) for one in", "[one for one in", f"{CHOSEN} -k on_the_cpu"),
    ("nodes/host/bank.py", "_OF_COPIES.get(origin) or Bank()", "Bank()", f"{DEVICES} -k one_bank"),
    (
        "nodes/host/innermost.py",
        "if all(getattr",
        "if any(getattr",
        "tests/composition/test_outer_samplings.py -k schedule",
    ),
    (
        "nodes/row_adapters/batch_adapters.py",
        "own_of(running, self._patcher)",
        "self._patcher",
        f"{DEVICES} -k concepts_with_loras and cards and sd15",
    ),
    (
        "nodes/row_adapters/own_weights.py",
        "own_of(running, self._other)",
        "self._other",
        f"{DEVICES} -k another_checkpoint and cards",
    ),
    (
        "nodes/row_adapters/concept_deltas.py",
        '        model.remove_additional_models("multigpu")\n',
        "",
        f"{DEVICES} -k another_checkpoint and keys",
    ),
    (
        "nodes/row_adapters/concept_deltas.py",
        "    if not related(concept, base):\n        reasons",
        "    if concept.model is not base.model:\n        reasons",
        f"{CHOSEN} -k behind_and_before",
    ),
    (
        "nodes/concept_conductor/conductor_run.py",
        "min(place for place, _, _ in noted)",
        "noted[0][0]",
        f"{DEVICES} -k thread_is_first",
    ),
    (
        "nodes/concept_conductor/concept_passes.py",
        "min(positives, key=lambda chunk: place_of(chunk, self.call.run.conds()), default=None)",
        "positives[0] if positives else None",
        f"{DEVICES} -k first_prompt",
    ),
    (
        "nodes/concept_conductor/concept_control.py",
        "        net = net.get_instance_for_device(x.device)\n",
        "        pass\n",
        f"{DEVICES} -k controlnet and cards",
    ),
    (
        "nodes/text_contexts/context_router.py",
        "self.name, dict, call.base",
        "self.name, dict",
        f"{DEVICES} -k all_techniques and cards",
    ),
    (
        "nodes/masks/layout_mask.py",
        "latent = model.model.model_sampling, latent.to(model.load_device)",
        "latent = model.model.model_sampling, latent.to(mm.get_torch_device())",
        f"{CHOSEN} -k layout_picture",
    ),
]

IMAGE_PROMPTS = [
    (
        "nodes/image_prompts/image_run.py",
        " or not same",
        "",
        f"{PROMPTS} -k nobody_names",
    ),
    (
        "nodes/image_prompts/image_run.py",
        "self._held = [self.total()]",
        "self._held = []",
        f"{PROMPTS} -k shares",
    ),
    (
        "nodes/image_prompts/image_member.py",
        "max(p.positions) < context.shape[1]",
        "max(p.positions) <= context.shape[1]",
        f"{PROMPTS} -k positions",
    ),
    ("nodes/host/token_runs.py", "number * PART_TOKENS + 1 + place", "number * PART_TOKENS + place", PHRASES),
    (
        "nodes/image_prompts/phrases.py",
        "tokens_between(parts[0])[:LONGEST]",
        "tokens_between(parts[0])[: LONGEST - 1]",
        PHRASES,
    ),
    (
        "nodes/image_prompts/heat_maps.py",
        "images[i if len(images) > 1 else 0]",
        "images[0]",
        f"{PROMPTS} -k maps_over",
    ),
    (
        "nodes/image_prompts/image_branch.py",
        "_product(shares, None if gate is None else gate[:, None])",
        "shares",
        f"{PROMPTS} -k gate",
    ),
    (
        "nodes/image_adapters/image_tokens.py",
        ".mean(0).cpu()",
        "[0].cpu()",
        TOKENS,
    ),
    ("nodes/image_adapters/image_tokens.py", "(image * mask + (1 - mask))", "(image * mask)", TOKENS),
    (
        "nodes/image_adapters/adapter_fit.py",
        'FILE_ORDER = ("input", "output", "middle")',
        'FILE_ORDER = ("input", "middle", "output")',
        "tests/image_adapters/test_image_adapter.py",
    ),
]

TEXTS_AND_WEIGHTS = [
    (
        "nodes/text_contexts/word_tokenizer.py",
        "sorted(self._embeddings, key=len, reverse=True)",
        "sorted(self._embeddings, key=len)",
        WORDS,
    ),
    ("nodes/text_contexts/concept_words.py", "        known.pop(word.name, None)\n", "", WORDS),
    ("nodes/text_contexts/word_encoding.py", "ranks.index(max(ranks))", "ranks.index(min(ranks))", WORDS),
    (
        "nodes/text_contexts/made_contexts.py",
        "            self._last.clear()\n",
        "",
        "tests/text_contexts/test_made_contexts.py -k keep_nothing",
    ),
    (
        "nodes/text_contexts/made_contexts.py",
        "patches_digest(self.patcher.patches)",
        "None",
        "tests/text_contexts/test_made_contexts.py -k contents",
    ),
    (
        "kernels/word_mapper.py",
        "norm * o / o.norm(dim=1, keepdim=True)",
        "o",
        "tests/text_contexts/test_concept_golden.py -k neti_contexts",
    ),
    (
        "kernels/gated_edit.py",
        "% outputs.shape[1]",
        "* 0",
        "tests/text_contexts/test_concept_golden.py -k perfusion_by_position",
    ),
    (
        "kernels/row_adapters.py",
        'torch.einsum("i q, p j -> p q i j", down, up)',
        'torch.einsum("i q, p j -> q p i j", down, up)',
        "tests/weight_deltas/test_krona.py -k product",
    ),
    (
        "nodes/files/object_files.py",
        "if last >= len(values) or",
        "if",
        "tests/files/test_object_files.py -k fit_their",
    ),
    (
        "nodes/files/standins.py",
        "isinstance(key, int) and abs(key) < _SMALL",
        "isinstance(key, int)",
        "tests/files/test_object_files.py -k hash",
    ),
    (
        "nodes/text_contexts/alignit.py",
        "moved += len(ordinary) - len(phrase)",
        "moved += 0",
        "tests/text_contexts/test_alignit.py -k several_places",
    ),
    (
        "nodes/text_contexts/stage_prompts.py",
        "(lowest - _BELOW) / 999",
        "lowest / 999",
        "tests/text_contexts/test_stage_prompts.py -k noise_level",
    ),
    (
        "nodes/weight_deltas/custom_diffusion.py",
        "change = value.float() - weight",
        "change = value.float()",
        "tests/weight_deltas/test_custom_diffusion.py -k strengths",
    ),
    (
        "nodes/text_contexts/readings.py",
        "return read[: len(part)]",
        "return read",
        "tests/text_contexts/test_concept_words.py -k keys_read",
    ),
    (
        "nodes/text_contexts/context_router.py",
        "key = chunk.uuid, chunk.role",
        "key = chunk.role",
        f"{EDLORA} -k combined or both_sides",
    ),
    (
        "nodes/row_adapters/layer_products.py",
        "part.up.float() * part.scale",
        "part.up.float()",
        f"{ADAPTERS} -k each_kind",
    ),
    (
        "nodes/row_adapters/own_weights.py",
        "[*shared, *hooked, *self._patches[key]]",
        "[*hooked, *self._patches[key]]",
        f"{ADAPTERS} {CONCEPTS} -k own_forward or need_the_weights or behind_the_conductor",
    ),
    (
        "nodes/row_adapters/concept_deltas.py",
        " or patch[2] != 1.0]",
        "]",
        f"{ADAPTERS} -k blend",
    ),
    (
        "nodes/row_adapters/weight_patches.py",
        "(patch[0] - like[0], *patch[1:])",
        "(patch[0], *patch[1:])",
        f"{ADAPTERS} -k both_have or twice",
    ),
    ("nodes/resadapter/resadapter.py", "min(max(alpha, 0.0), 1.0)", "max(alpha, 0.0)", RESADAPTER),
    (
        "nodes/resadapter/resadapter.py",
        "strength_model=1.0 - norm_strength",
        "strength_model=1.0",
        f"{RESADAPTER} -k formula",
    ),
    ("nodes/resadapter/resolution.py", "side <= native else", "side < native else", RESOLUTION),
    ("nodes/resadapter/resolution.py", "int(side / multiple + 0.5)", "int(side / multiple)", RESOLUTION),
    (
        "nodes/resadapter/adapter_sets.py",
        "if abs(mean) < LEAST_MEAN",
        "if mean < -LEAST_MEAN",
        "tests/resadapter/test_resadapter_node.py",
    ),
    (
        "nodes/files/new_files.py",
        "        _remove(written)\n        raise",
        "        raise",
        "tests/text_contexts/test_edlora_node.py tests/files",
    ),
    (
        "nodes/files/file_stamps.py",
        "status.st_mtime_ns, status.st_size",
        "status.st_size, status.st_size",
        "tests/files/test_model_files.py",
    ),
]

NOISE_AND_LAYOUTS = [
    (
        "nodes/golden_noise/noise_pairs.py",
        ", *(entry[0] for entry in negative))",
        ")",
        f"{TRAINING} -k pairs_of_its_own",
    ),
    (
        "nodes/golden_noise/noise_pairs.py",
        "settings.guidance, settings.inverse_guidance, settings.steps",
        "settings.guidance, settings.steps",
        f"{TRAINING} -k pairs_of_its_own",
    ),
    (
        "nodes/golden_noise/golden_noise.py",
        "plain + self.strength * (golden - plain)",
        "golden + self.strength * (plain - golden)",
        f"{NOISE} -k new_noise",
    ),
    (
        "nodes/golden_noise/golden_noise_model.py",
        "first >= FULL * float(sampling.sigma_max)",
        "first >= float(sampling.sigma_max)",
        f"{SAMPLING} -k full_noise",
    ),
    (
        "nodes/golden_noise/golden_noise_source.py",
        "return self._known[1].clone()",
        "return self._known[1]",
        f"{NOISE} -k new_noise",
    ),
    ("nodes/golden_noise/npnet_training.py", "if i % HELD_OUT != HELD_OUT - 1", "if True", f"{TRAINING} -k lesson"),
    ("nodes/golden_noise/npnet_training.py", "if done % SAVE_EVERY == 0:", "if False:", f"{TRAINING} -k now_and_then"),
    ("nodes/golden_noise/redenoised.py", "self.guidances[back]", "self.guidances[0]", f"{NOISE} -k redenoise_recorded"),
    (
        "nodes/inversion/inversion.py",
        "    x = x * input_root(sampling, before)\n",
        "",
        f"{LAYOUT} -k golden_inversion and not 999",
    ),
    ("nodes/inversion/inversion_cache.py", "        os.utime(path)\n", "", f"{LAYOUT} -k budget"),
    (
        "nodes/inversion/inversion_cache.py",
        "torch.tensor(levels))",
        "torch.tensor(levels[-1:]))",
        f"{LAYOUT} -k key",
    ),
    (
        "nodes/inversion/layout_picture.py",
        "known is None or known[0] != latent_size",
        "known is None",
        f"{LAYOUT} -k once_per_size",
    ),
    (
        "nodes/latent_guidance/latent_gradient.py",
        "return gradient / scale",
        "return gradient",
        f"{CONDUCTOR_GOLDEN} -k half_precision",
    ),
    (
        "nodes/latent_guidance/latent_gradient.py",
        "        scale /= 256\n",
        "",
        "tests/latent_guidance/test_latent_gradient.py",
    ),
    (
        "nodes/latent_guidance/latent_gradient.py",
        "rows * bytes_kept(",
        "bytes_kept(",
        "tests/latent_guidance/test_latent_gradient.py",
    ),
    (
        "nodes/reference_attention/reference_branch.py",
        "elif joining == REPLACE:",
        "elif joining is REPLACE and len(some) > 1:",
        "tests/editing/test_visctrl_golden.py",
    ),
    (
        "nodes/inversion/guided_inversion.py",
        "seen = x * self.root(level) / self.root(before)",
        "seen = x",
        "tests/editing/test_visctrl_golden.py",
    ),
    (
        "nodes/masks/mask_of_box.py",
        "(y, x, y + height, x + width)",
        "(x, y, x + width, y + height)",
        "tests/masks/test_box_mask_node.py",
    ),
    (
        "nodes/masks/layout_mask.py",
        "TIMESTEP * (i + 1) // STEPS",
        "TIMESTEP * i // STEPS",
        "tests/masks/test_layout_mask_node.py -k published_noise",
    ),
    (
        "nodes/pocket/pocket_model.py",
        "    pocket = _LOADED.get(key)\n",
        "    pocket = None\n",
        "tests/pocket/test_pocket_model.py -k twice",
    ),
]

PEOPLE = [
    (
        "kernels/face_alignment.py",
        "signs = torch.stack([torch.ones(()).double(), torch.linalg.det(u @ v).sign()])",
        "signs = torch.ones(2).double()",
        "tests/kernels/test_face_alignment.py -k mirrored",
    ),
    (
        "kernels/keypoint_picture.py",
        "error = list(start), length - 2 * width",
        "error = list(start), length - width",
        "tests/kernels/test_keypoint_picture.py",
    ),
    (
        "nodes/faces/analysis.py",
        "return picture.flip(-1).contiguous().numpy()",
        "return picture.contiguous().numpy()",
        "tests/faces/test_face_networks.py -k told_apart",
    ),
    (
        "nodes/faces/face_views.py",
        "face = max(faces, key=area_of)",
        "face = faces[-1]",
        "tests/faces/test_face_views.py -k largest",
    ),
    (
        "nodes/image_adapters/faceid_tokens.py",
        "F.normalize(embeddings.float(), dim=-1)",
        "embeddings.float()",
        "tests/image_prompts/test_people.py -k faceid_reads_lengths_of_one",
    ),
    (
        "nodes/image_adapters/adapter_lora.py",
        'for own, module in ((2 * number, cross.removesuffix("2") + "1"), (2 * number + 1, cross)):',
        'for own, module in ((2 * number + 1, cross.removesuffix("2") + "1"), (2 * number, cross)):',
        "tests/image_adapters/test_face_adapters.py -k reaches_every",
    ),
    (
        "nodes/image_prompts/identity_passes.py",
        "strengths * regions / regions.sum(0).clamp(min=1)",
        "strengths * regions",
        "tests/image_prompts/test_instantid.py -k own_region",
    ),
    (
        "nodes/image_prompts/identity_passes.py",
        "return [None] * (length - len(values)) + list(values)",
        "return list(values) + [None] * (length - len(values))",
        "tests/image_prompts/test_instantid.py -k join_what_stands",
    ),
    (
        "nodes/image_prompts/image_branch.py",
        "return equal_shares(regions)[None]",
        "return regions[None]",
        "tests/image_prompts/test_instantid_golden.py -k noise_prediction",
    ),
    (
        "nodes/image_prompts/story_member.py",
        "for place, (seen, nobody) in enumerate(people):",
        "for place, (seen, nobody) in enumerate(people, 1 - len(people)):",
        "tests/image_prompts/test_storymaker_golden.py -k image_tokens",
    ),
]

LINES = [
    *KERNELS,
    *HOST,
    *CONCEPT_CONDUCTOR,
    *ON_DEVICES,
    *REFERENCES,
    *IMAGE_PROMPTS,
    *PEOPLE,
    *TEXTS_AND_WEIGHTS,
    *NOISE_AND_LAYOUTS,
]
