"""Baselines that add to the frozen backbone or train what is there, held to their formulas and to published sizes."""

import pytest
import torch
import torch.nn.functional as F

from ssp import build_model, parameter_counts

BACKBONE = {"embed_dim": 16, "depth": 2, "patch_size": 8}


def lively(method, **options):
    """A small model in float64 whose parameters all matter."""
    torch.manual_seed(0)
    model = build_model(BACKBONE, method, 3, num_frames=2, img_size=16, method_options=options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def video():
    return torch.randn(2, 3, 2, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def bare_of(model):
    """The linear probe with the backbone, norm and head of another model."""
    bare = build_model(BACKBONE, "linear", 3, num_frames=2, img_size=16).double().eval()
    bare.load_state_dict({key: value for key, value in model.state_dict().items() if key not in model.added})
    return bare


@pytest.mark.parametrize(
    ("method", "options", "extra", "tuned"),
    [
        ("adapter", {}, 2_379_776, 2_379_776),
        ("lora", {}, 1_474_560, 1_474_560),
        ("lora", {"targets": ["in_proj"], "rank": 24}, 2_211_840, 2_211_840),
        ("lora", {"targets": ["out_proj"], "rank": 32}, 1_769_472, 1_769_472),
        ("lora", {"targets": ["in_proj_x"], "rank": 43}, 2_377_728, 2_377_728),
        ("lora", {"targets": ["in_proj_z"], "rank": 64}, 3_538_944, 3_538_944),
        ("lora", {"targets": ["x_proj"], "rank": 16}, 1_249_280, 1_249_280),
        ("lora", {"targets": ["dt_proj"], "rank": 1}, 76_032, 76_032),
        ("bitfit", {}, 0, 148_032),
        ("norm_tuning", {}, 0, 18_432),
        ("vpt", {}, 1_474_560, 1_474_560),
        ("ssp", {}, 2_418_274, 2_418_274),
    ],
)
def test_sizes_on_videomamba_m(method, options, extra, tuned):
    with torch.device("meta"):
        model = build_model("videomamba_middle", method, 51, method_options=options)
    counts = parameter_counts(model)
    assert (counts["extra"], counts["tuned"]) == (extra, tuned)


@pytest.mark.parametrize("reads", ["sum", "normed"])
def test_adapter_is_its_formula(reads):
    model = lively("adapter", rank=3, reads=reads, scale=0.3)
    tokens = model.embed(video())
    hidden, residual = tokens, torch.zeros_like(tokens)
    for block, adapter in zip(model.layers, model.adapters, strict=True):
        residual = residual + hidden
        normed = residual * (residual.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * block.norm.weight
        seen = normed if reads == "normed" else residual
        middle = torch.clamp(seen @ adapter.down.weight.T + adapter.down.bias, min=0)
        hidden = block.mixer(normed) + 0.3 * (middle @ adapter.up.weight.T + adapter.up.bias)
    logits = model.forward_head((residual + hidden)[:, 0])
    torch.testing.assert_close(model(video()), logits)
    ours = torch.autograd.grad(F.cross_entropy(model(video()), torch.tensor([0, 1])), model.adapters[0].down.weight)
    theirs = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([0, 1])), model.adapters[0].down.weight)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("targets", [["in_proj"], ["in_proj_x", "dt_proj"], ["in_proj_z", "x_proj", "out_proj"]])
def test_lora_is_a_backbone_with_other_weights(targets):
    model = lively("lora", rank=2, targets=targets, scale=0.5)
    folded = bare_of(model)
    for parameter in folded.parameters():
        parameter.requires_grad_(False)
    weights = []
    for block, factors in zip(folded.layers, model.lora, strict=True):
        for key, pair in factors.items():
            layer = block.mixer.get_submodule(key.removesuffix("_x").removesuffix("_z"))
            rows = {"x": slice(0, 32), "z": slice(32, 64)}.get(key[-1], slice(None))
            whole = layer.weight.clone()
            whole[rows] += 0.5 * pair.up.detach() @ pair.down.detach()
            layer.weight = torch.nn.Parameter(whole)
            weights.append((layer, rows, pair))
    torch.testing.assert_close(model(video()), folded(video()))
    labels = torch.tensor([0, 1])
    F.cross_entropy(folded(video()), labels).backward()
    F.cross_entropy(model(video()), labels).backward()
    for layer, rows, pair in weights:  # chain rule by hand: dL/dup = scale * dL/dW down^T
        torch.testing.assert_close(pair.up.grad, 0.5 * layer.weight.grad[rows] @ pair.down.detach().T)


def test_bitfit_and_norm_tuning_train_what_they_say():
    for method, ends in (("bitfit", (".bias",)), ("norm_tuning", (".norm.weight",))):
        model = lively(method)
        trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        expected = {n for n, _ in model.named_parameters() if n.endswith(ends) or n.startswith(("head.", "norm_f."))}
        assert trains == expected and not model.added
        torch.testing.assert_close(model(video()), bare_of(model)(video()))
