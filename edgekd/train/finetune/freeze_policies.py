"""The freeze tables: TinySAM, transformers' Sam3Model and Sam3TrackerModel, with the counts of the released sizes.

Stages: 1 adapter and last vision blocks, 2 mask head and presence, 3 joint. Parts that can never receive a gradient
are named and kept frozen: the third pixel-decoder level of SAM3 (three levels, two of them upsampled) and the fourth
neck level (dropped before use), so that distributed training needs no search for unused parameters.
"""

from __future__ import annotations

from dataclasses import replace

from edgekd.train.finetune.freeze import FreezePolicy, Part

_ADAPT = frozenset({1, 3})
_HEAD = frozenset({2, 3})
_PRESENCE = frozenset({2})

ADAPTER_PATTERN = "*.adapter.*"
SAM3_BLOCKS = 32
N_TRAINED_BLOCKS = 6


def _last_blocks(n_blocks: int) -> tuple[str, ...]:
    return tuple(f"vision_encoder.backbone.layers.{i}.*" for i in range(n_blocks - N_TRAINED_BLOCKS, n_blocks))


def sam3_of_depth(n_blocks: int) -> FreezePolicy:
    """The SAM3 table for a configuration with another number of vision blocks: same parts, no counts."""
    parts = [replace(p, patterns=_last_blocks(n_blocks)) if p.name == _BLOCKS else p for p in SAM3.parts]
    return FreezePolicy(SAM3.model, tuple(parts)).without_counts()


_BLOCKS = "last 6 vision blocks"

SAM3 = FreezePolicy(
    "SAM3",
    (
        Part("spectral adapter", (ADAPTER_PATTERN,), _ADAPT, 495_078),
        Part(_BLOCKS, _last_blocks(SAM3_BLOCKS), _ADAPT, 83_445_504),
        Part("vision neck level 3 (unused)", ("vision_encoder.neck.fpn_layers.3.*",), n_parameters=852_480),
        Part("vision encoder, rest", ("vision_encoder.*",), n_parameters=369_740_800),
        Part("text encoder", ("text_encoder.*", "text_projection.*"), n_parameters=353_724_672),
        Part("geometry encoder", ("geometry_encoder.*",), n_parameters=8_083_456),
        Part("fusion encoder", ("detr_encoder.*",), n_parameters=9_472_512),
        Part("presence", ("detr_decoder.presence_*",), _PRESENCE, 132_609),
        Part("decoder", ("detr_decoder.*",), n_parameters=11_442_484),
        Part("scoring", ("dot_product_scoring.*",), n_parameters=1_182_976),
        Part(
            "pixel decoder level 2 (unused)",
            ("mask_decoder.pixel_decoder.conv_layers.2.*", "mask_decoder.pixel_decoder.norms.2.*"),
            n_parameters=590_592,
        ),
        Part("mask head", ("mask_decoder.*",), _HEAD, 1_708_289),
    ),
)

SAM3_TRACKER = FreezePolicy(
    "SAM3 tracker",
    (
        Part("spectral adapter", (ADAPTER_PATTERN,), _ADAPT, 495_078),
        Part(_BLOCKS, _last_blocks(SAM3_BLOCKS), _ADAPT, 83_445_504),
        Part("vision neck level 3 (unused)", ("vision_encoder.neck.fpn_layers.3.*",), n_parameters=852_480),
        Part("vision encoder, rest", ("vision_encoder.*",), n_parameters=369_740_800),
        Part("prompt encoder", ("prompt_encoder.*", "no_memory_embedding"), n_parameters=6_476),
        Part("mask head", ("mask_decoder.*",), _HEAD, 4_215_109),
    ),
)

TINYSAM = FreezePolicy(
    "TinySAM",
    (
        Part("spectral adapter", (ADAPTER_PATTERN,), _ADAPT, 165_026),
        Part("vision stage 3", ("image_encoder.backbone.stages_3.*",), _ADAPT, 2_632_340),
        Part("neck", ("image_encoder.neck.*",), _ADAPT, 672_768),
        Part("vision encoder, rest", ("image_encoder.*",), n_parameters=2_438_784),
        Part("prompt encoder", ("prompt_encoder.*",), n_parameters=6_220),
        Part("mask head", ("mask_decoder.*",), _HEAD, 4_058_340),
    ),
)

_ALWAYS = frozenset({1, 2, 3})

TINYSAM_FROM_NOTHING = FreezePolicy(
    "TinySAM from random weights",
    (
        Part("vision encoder", ("tinysam.image_encoder.*",), _ALWAYS),
        Part("prompt encoder", ("tinysam.prompt_encoder.*",), _ALWAYS),
        Part("mask head", ("tinysam.mask_decoder.*",), _ALWAYS),
        Part("auxiliary heads (training only)", ("auxiliary.*",), _ALWAYS),
    ),
)
