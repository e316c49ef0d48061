"""Passes: each clip's own draws, and memory that does not hold a micro-batch."""

import logging

import pytest
import torch

from ssp.config import Recipe
from ssp.methods.build import build_model
from ssp.records.record import Chosen
from ssp.training.execution import Execution
from ssp.training.failure import OutOfMemory
from ssp.training.loop import fit, trained_tensors
from tests.unit.toy import CLASSES, FRAMES, SIZE, Clips

IN_DOUBLE = Execution(torch.device("cpu"))
CHOSEN = Chosen(lr=0.02, weight_decay=0.01, drop_path=0.3)


def deep_model():
    """Four blocks: of two, none would drop paths."""
    torch.manual_seed(0)
    options = {"inner_dim": 8, "attn_dim": 8, "num_prompts": 1}
    size = {"embed_dim": 16, "depth": 4, "patch_size": 8}
    return build_model(
        size, "ssp", CLASSES, num_frames=FRAMES, img_size=SIZE, drop_path=0.3, method_options=options
    ).double()


def train(trained=None, micro=None, augmentation=None):
    """Two epochs of two steps of six videos: the curve, and what came out."""
    trained = trained or deep_model()
    clips = Clips(12, repeats=(augmentation or {}).get("repeats", 1))
    clips.videos = clips.videos.double()
    recipe = {
        "epochs": 2,
        "warmup_epochs": 0,
        "batch_size": 6,
        "micro_batch": micro,
        "augmentation": augmentation or {},
    }
    epochs = list(
        fit(trained, clips, None, recipe=Recipe.model_validate(recipe), chosen=CHOSEN, seed=0, execution=IN_DOUBLE)
    )
    return epochs, trained_tensors(trained)


def agree(one, other):
    for mine, theirs in zip(one[0], other[0], strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-6)
    for a, b in zip(one[1].values(), other[1].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", [{}, {"repeats": 2, "mixup": 0.8, "cutmix": 1.0}])
def test_a_clips_drop_path_is_its_own_however_a_batch_is_cut(augmentation):
    whole = train(augmentation=augmentation)
    for micro in (6, 4, 2):
        agree(train(micro=micro, augmentation=augmentation), whole)


@pytest.mark.slow
def test_drop_path_drops_by_clip_and_by_augmentation_at_its_rate():
    model = deep_model()
    kept = []

    def watch(path, inputs, output):
        kept.append((path.rate, (output.flatten(1).abs().sum(1) > 0).tolist()))

    for module in model.modules():
        if type(module).__name__ == "DropPath" and module.rate:
            module.register_forward_hook(watch)
    for _ in range(10):
        train(model, augmentation={"repeats": 2})
    last = [clip for rate, clips in kept if rate == pytest.approx(0.3) for clip in clips]
    assert 0.6 < sum(last) / len(last) < 0.8
    first, second = last[::2], last[1::2]
    assert sum(a != b for a, b in zip(first, second, strict=True)) / len(first) > 0.1  # 0.42 if they are independent


def narrow_model(most):
    """A model with memory for passes of so many clips: above, it asks the allocator for too much; and its passes."""
    model, passes = deep_model(), []

    def look(_, given, __):
        passes.append(len(given[0]))
        if len(given[0]) > most:
            torch.empty(2**60)

    model.register_forward_hook(look)
    return model, passes


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", [{}, {"repeats": 2, "mixup": 0.8, "cutmix": 1.0}])
@pytest.mark.parametrize("micro", [None, 4])
def test_too_little_memory_halves_the_passes_and_changes_no_result(micro, augmentation, caplog):
    repeats = augmentation.get("repeats", 1)
    expected = train(micro=micro, augmentation=augmentation)
    model, passes = narrow_model(2 * repeats)
    with caplog.at_level(logging.WARNING):
        found = train(model, micro=micro, augmentation=augmentation)
    agree(found, expected)
    assert [epoch.largest_pass for epoch in found[0]] == [2, 2]
    assert [epoch.largest_pass for epoch in expected[0]] == [None, None]
    refused = [clips for clips in passes if clips > 2 * repeats]
    assert len(refused) == (1 if micro else 2)  # 4 to 2; 6 to 3 to 2
    assert "going on with 2" in caplog.messages[-1]


def test_one_video_that_does_not_fit_ends_the_training():
    with pytest.raises(OutOfMemory, match=r"^out of memory: .*\(one video a pass\)$"):
        train(narrow_model(0)[0])
