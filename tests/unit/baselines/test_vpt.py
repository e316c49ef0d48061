"""VPT-deep: places of the prompt rows, what a block sees there, drop path, initialisations, size."""

import pytest
import torch

from ssp import build_model, parameter_counts

SMALL = {"embed_dim": 16, "depth": 3, "patch_size": 8}
PROMPTS, FRAMES, PATCHES = 4, 3, 6
PLACES = {
    "before_cls": list(range(4)),
    "after_cls": list(range(1, 5)),
    "suffix": list(range(19, 23)),
    "per_frame": [1 + frame * 10 + 6 + i for frame in range(3) for i in range(4)],
}


def build(position="after_cls", drop_path=0.0, init="uniform"):
    torch.manual_seed(0)
    options = {"num_prompts": PROMPTS, "position": position, "init": init}
    return build_model(
        SMALL, "vpt", 5, num_frames=FRAMES, img_size=(16, 24), drop_path=drop_path, method_options=options
    )


def lively(position):
    model, generator = build(position).eval(), torch.Generator().manual_seed(2)
    with torch.no_grad():  # fresh weights hardly couple one row with another
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def videos():
    return torch.randn(6, 3, FRAMES, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("position", PLACES)
def test_every_block_sums_exactly_its_prompts(position):
    """Under strong drop path too: prompts are set in the sum, which the branch's drop path does not touch."""
    model, sums = build(position, drop_path=0.8).train(), []
    for block in model.layers:
        block.register_forward_hook(lambda _, given, made: sums.append(made.residual))
    model(videos())
    repeats = FRAMES if position == "per_frame" else 1
    length = 1 + FRAMES * PATCHES + repeats * PROMPTS
    for index, made in enumerate(sums):
        assert made.shape[1] == length
        expected = model.prompt_embeddings[index].repeat(repeats, 1)
        assert torch.equal(made[:, PLACES[position]], expected.expand(6, -1, -1))


@pytest.mark.parametrize("position", PLACES)
def test_other_rows_are_the_embedding(position):
    model, sums = build(position), []
    model.layers[0].register_forward_hook(lambda _, given, made: sums.append(made.residual))
    model(videos())
    others = [row for row in range(sums[0].shape[1]) if row not in PLACES[position]]
    assert torch.equal(sums[0][:, others], model.embed(videos()))


def test_places_give_different_logits():
    with torch.no_grad():
        logits = [lively(position)(videos()) for position in PLACES]
    assert all((a - b).abs().max() > 1e-6 for i, a in enumerate(logits) for b in logits[:i])


def test_bounds_of_the_two_initialisations():
    uniform, xavier = build().prompt_embeddings.abs().max(), build(init="xavier").prompt_embeddings.abs().max()
    assert uniform <= (6 / (3 * 8 * 8 + 16)) ** 0.5 < 1.1 * uniform
    assert xavier <= (6 / (16 * (PROMPTS + 1))) ** 0.5 < 1.1 * xavier


def test_published_size_and_default_bounds():
    with torch.device("meta"):
        model = build_model("videomamba_middle", "vpt", 51)
    assert parameter_counts(model)["extra"] == 1_474_560
    assert parameter_counts(model)["trainable"] == 1_504_563
    assert model.method.options.position == "after_cls" and model.method.options.init == "uniform"
