"""Source classes: generated clips in memory that the demo's backbone is pre-trained on.

They share the renderer with the demo's data sets, but no action, no motion and no pairing of hue and shape.
"""

from __future__ import annotations

import numpy as np

from ssp.data.synthetic.scenes import SOURCE
from ssp.data.synthetic.staging import stage

CLASSES = len(SOURCE)
FPS = 6  # the spacing of the frames that dense sampling takes from the demo's videos
CLIPS_PER_SCENE = 4


def source_clip(seed: int, held_out: bool, index: int, *, frames: int, image_size: int) -> tuple[np.ndarray, int]:
    """One clip and its label; classes take turns.

    Args:
        seed: of the pre-training run.
        held_out: from the clips that measure the result, or from those trained on.
        index: number of the clip.
        frames: length.
        image_size: side in pixels.

    Returns:
        uint8 (frames, image_size, image_size, 3) RGB, and the label.
    """
    label, stream = index % CLASSES, (seed, int(held_out))
    clip = stage(
        "source",
        label,
        frames=frames,
        fps=FPS * frames / 8,  # the same stretch of time, whatever the number of frames
        size=(image_size, image_size),
        scene=(*stream, 0, index // CLIPS_PER_SCENE),
        take=np.random.default_rng((*stream, 1, index)),
        camera=np.random.default_rng((*stream, 2, index)),
    )
    return clip, label
