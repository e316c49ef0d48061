"""State Space Prompting: sizes, blank start, the gate and its quirk, and each step against a plain reading of it."""

from dataclasses import replace

import pytest
import torch

from ssp import build_model, parameter_counts
from ssp.errors import ConfigError
from ssp.methods.method import TuningMethod
from ssp.methods.prompting import InterFrameSpreading, IntraFrameGathering, entropy_gate

SMALL = {"embed_dim": 24, "depth": 3, "patch_size": 8}
OPTIONS = {"inner_dim": 10, "attn_dim": 16, "num_prompts": 3}


def model_and_video(entropy_norm="fixed", lively=True, batch=3):
    torch.manual_seed(0)
    options = OPTIONS | {"entropy_norm": entropy_norm}
    model = build_model(SMALL, "ssp", 4, num_frames=4, img_size=(16, 24), method_options=options).double()
    video = torch.randn(batch, 3, 4, 16, 24, dtype=torch.float64)
    if lively:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.4 * torch.randn_like(parameter))
    return model, video


@pytest.mark.parametrize(
    ("backbone", "extra"),
    [("videomamba_tiny", 1_384_154), ("videomamba_small", 1_901_210), ("videomamba_middle", 2_418_274)],
)
def test_published_sizes(backbone, extra):
    with torch.device("meta"):
        model = build_model(backbone, "ssp", 51)
    assert parameter_counts(model)["extra"] == extra
    if backbone == "videomamba_middle":
        groups = {"inner_prompt": 741_504, "prompt_attentions": 3 * 558_913, "dynamic_scales": 31}
        for group, size in groups.items():
            assert sum(p.numel() for p in model.get_submodule(group).parameters()) == size


def test_published_initialisation():
    """Zero where the published code has zero; elsewhere the layers' own initialisation, not the backbone's."""
    model, _ = model_and_video(lively=False)
    inner = model.inner_prompt
    zero = (inner.fc1.bias, inner.fc2.bias, inner.conv.weight, inner.conv.bias)
    zero += (inner.inter.convs.weight, inner.inter.convs.bias, inner.inter.heads.bias, *model.dynamic_scales)
    assert not any(parameter.any() for parameter in zero)
    assert inner.fc1.weight.detach().std() == pytest.approx(24**-0.5 / 3**0.5, rel=0.2)  # uniform, not normal(0.02)
    assert inner.inter.heads.weight.detach().std() == pytest.approx((2 / (10 + 24)) ** 0.5, rel=0.2)  # xavier normal
    assert all(attention.scale.item() == 1 for attention in model.prompt_attentions)


def test_fresh_prompting_is_the_backbone_with_blank_rows():
    class Blank(TuningMethod):
        def layout(self, layout):
            return replace(layout, per_frame=3)

    model, video = model_and_video(lively=False)
    with torch.no_grad():
        fresh = model(video)
        model.method = Blank()
        assert torch.equal(model(video), fresh)
        model.method = TuningMethod()
        assert (model(video) - fresh).abs().max() > 1e-9, "blank rows are not the same as no rows"


def test_entropy_norm_is_a_choice_between_two_gates():
    """Published: a clip's logits depend on its batch. Fixed: they do not."""
    for entropy_norm, depends in {"published": True, "fixed": False}.items():
        model, video = model_and_video(entropy_norm)
        with torch.no_grad():
            alone = torch.cat([model(clip[None]) for clip in video])
            difference = (model(video) - alone).abs().max()
        assert (difference > 1e-7) == depends, entropy_norm
        assert depends or difference < 1e-12


def test_both_gates_agree_on_a_single_clip():
    (published, video), (fixed, _) = model_and_video("published", batch=1), model_and_video("fixed", batch=1)
    with torch.no_grad():
        torch.testing.assert_close(published(video), fixed(video), rtol=1e-13, atol=1e-13)


def test_gate_formula():
    prompt = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    entropy = torch.zeros(2, 3, 4, dtype=torch.float64)
    for b, t, n in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        share = torch.exp(prompt[b, t, n]) / torch.exp(prompt[b, t, n]).sum()
        entropy[b, t, n] = -sum(s * torch.log(s + 1e-10) for s in share)
    for over_batch in (True, False):
        for b in range(2):
            largest = entropy.max() if over_batch else entropy[b].max()
            sharpness = (1 - entropy[b] / largest).mean(1)
            expected = torch.exp(sharpness) / torch.exp(sharpness).sum()
            torch.testing.assert_close(entropy_gate(prompt, over_batch=over_batch)[b], expected)


def test_fixed_gate_survives_spikes():
    """Every F a single spike: entropy 0 everywhere."""
    spikes = torch.zeros(1, 2, 3, 8)
    spikes[..., 0] = 1e4
    torch.testing.assert_close(entropy_gate(spikes, over_batch=False), torch.tensor([[0.5, 0.5]]))


def test_gate_is_computed_in_float32():
    """In bfloat16 the entropies would collapse to a few values."""
    prompt = torch.randn(1, 4, 6, 64).bfloat16()
    torch.testing.assert_close(entropy_gate(prompt, over_batch=False), entropy_gate(prompt.float(), over_batch=False))


def test_gathering_is_the_published_convolutions():
    torch.manual_seed(0)
    module = IntraFrameGathering(8, 6, (2, 3))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    patches = torch.randn(2, 4, 6, 8)
    volume = module.fc1(patches).permute(0, 3, 1, 2).unflatten(3, (2, 3))  # (B, inner, T, rows, columns)
    middle = module.conv(volume)
    prompt = module.fc2(middle.flatten(3).permute(0, 2, 3, 1))
    gathered = module.inter.heads(module.inter.convs(middle).flatten(2).transpose(1, 2))
    ours = module(patches)
    torch.testing.assert_close(ours[0], prompt, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[1], gathered, rtol=1e-5, atol=1e-5)


def test_gathered_vector_does_not_train_the_low_rank_map():
    module = IntraFrameGathering(8, 6, (2, 3))
    torch.nn.init.normal_(module.inter.convs.weight)
    module(torch.randn(2, 4, 6, 8))[1].sum().backward()
    assert module.fc1.weight.grad is None and module.conv.weight.grad is None
    assert module.inter.heads.bias.grad.any()


def test_spreading_attends_over_frames_of_a_clip_and_scales_its_output():
    torch.manual_seed(0)
    module, summary = InterFrameSpreading(8, 16), torch.randn(2, 4, 8)
    changed = summary.clone()
    changed[0, 3] += 1
    difference = (module(changed) - module(summary)).abs().amax(-1)
    assert (difference[0] > 0).all() and not difference[1].any(), "all frames of the clip, no other clip"
    before = module(summary)
    with torch.no_grad():
        module.scale.fill_(3)
    torch.testing.assert_close(module(summary), 3 * before)


def test_rows_before_each_block():
    """Patches get F; prompt rows are blank first, then overwritten from the summary taken before F was added."""
    model, video = model_and_video()
    method, seen = model.method, []
    for block in model.layers:
        block.register_forward_hook(lambda _, given, made: seen.append((given[0], made.hidden)))
    with torch.no_grad():
        model(video)
        layout = method.layout(model.bare_layout)
        first = layout.split_frames(seen[0][0])
        assert first.shape == (3, 4, 9, 24) and not first[:, :, 6:].any()
        for index in (1, 2):
            output, given = seen[index - 1][1], seen[index][0]
            patches = layout.split_frames(output)[:, :, :6]
            prompt, gathered = model.inner_prompt(patches)
            gate = entropy_gate(prompt, over_batch=False)
            summary = patches[:, :, 5] * (1 + model.dynamic_scales[index - 1] * gate[..., None])
            rows = layout.split_frames(given)
            torch.testing.assert_close(rows[:, :, :6], patches + prompt)
            for i, spread in enumerate(model.prompt_attentions):
                torch.testing.assert_close(rows[:, :, 6 + i], spread(summary) * gathered)
            assert torch.equal(given[:, 0], output[:, 0]), "the class token gets no prompt"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"attn_dim": 20}, "must be a multiple of 8"),
        ({"entropy_norm": "both"}, r"options\.entropy_norm"),
        ({"num_prompts": -1}, r"options\.num_prompts"),
        ({"kernel": 2}, r"options\.kernel"),
        ({"summary": "first_patch"}, r"options\.summary"),
    ],
)
def test_wrong_options(option, message):
    with pytest.raises(ConfigError, match=message) as error:
        build_model(SMALL, "ssp", 4, method_options=option)
    assert str(error.value).startswith("methods.ssp.options") and "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_runs_and_trains(dtype):
    """As the published code was trained, in bfloat16 throughout; near to float64 within that precision."""
    model, video = model_and_video(lively=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in model.added:
                parameter.add_(0.02 * torch.randn_like(parameter))
    exact = model(video).detach()
    logits = model.to(dtype)(video.to(dtype))
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.double(), exact, atol=0.05 * float(exact.abs().max()), rtol=0)
    logits.float().square().sum().backward()
    assert all(model.get_parameter(f"dynamic_scales.{i}").grad is not None for i in range(2))
