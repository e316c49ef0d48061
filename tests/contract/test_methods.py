"""What every registered tuning method keeps to; methods are found by name, so a new one is tested by itself.

Whether each learns something is in `test_learning.py`; whether it is what its paper says, in `tests/methods`.
"""

import copy
import json
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from ssp import build_model, load_weights, parameter_counts
from ssp.backbone.checkpoint import load_tuned, save_tuned
from ssp.backbone.flops import forward_flops
from ssp.backbone.layout import is_readout
from ssp.errors import ConfigError
from ssp.methods.registry import load_method, method_names

BACKBONE = {"embed_dim": 32, "depth": 3, "patch_size": 8}
CLASSES, FRAMES, SIDE = 5, 3, 24
NONE, SOME = 1e-18, 1e-13  # beside the largest gradient of a step in float64: surely rounding, surely none of it


def variants():
    """Each method with all of its test configs; `make quick` has the first of each."""
    for name in method_names():
        for number, options in enumerate(load_method(name).test_configs):
            label = "-".join([name, *(f"{key}={value}" for key, value in options.items())])
            yield pytest.param((name, options), id=label, marks=[pytest.mark.slow] if number else [])


pytestmark = pytest.mark.parametrize("variant", list(variants()))
BARE = ("linear", {})


def set_seed(seed):
    """What `torch.manual_seed` does on the CPU; for devices that are not in use that notes the whole call stack."""
    torch.default_generator.manual_seed(seed)


def build(variant, seed=0, frames=FRAMES, drop_path=0.0):
    set_seed(seed)
    name, options = variant
    return build_model(
        BACKBONE, name, CLASSES, num_frames=frames, img_size=SIDE, drop_path=drop_path, method_options=options
    )


def lively(variant, **kwargs):
    """A model whose parameters all matter: what starts at zero (gates, up-projections) is moved away from it."""
    model = build(variant, **kwargs)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@cache
def bare(seed=0):
    """The model without a method, shared: nothing is changed in it."""
    return build(BARE, seed=seed)


@cache
def bare_flops():
    with torch.device("meta"):
        return forward_flops(build(BARE))


@cache
def bare_logits():
    with torch.no_grad():
        return build(BARE).double().eval()(videos(dtype=torch.float64))


def videos(batch=3, frames=FRAMES, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, 3, frames, SIDE, SIDE, generator=generator, dtype=torch.float64).to(dtype)


def train(model, steps=3):
    """Real steps without weight decay, so that only a gradient moves anything; yields after each backward."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=1e-2)
    video, labels = videos(2, dtype=trainable[0].dtype), torch.arange(2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(video), labels).backward()
        yield
        optimizer.step()


def test_speaks_the_domain(variant):
    name, options = variant
    method = load_method(name)
    assert method.name == name
    assert method.title and method.source and method.__doc__
    json.dumps(method(options, where="methods.my_row.options").options.model_dump(mode="json"))
    for option, space in method().sweep_space().items():
        assert option in method.Options.model_fields
        for value in space.choices or (space.low, space.high):
            method({option: value})


def test_forward(variant):
    logits = build(variant)(videos())
    assert logits.shape == (3, CLASSES)
    assert logits.isfinite().all()


def test_flops_are_counted_and_merging_leaves_the_backbones(variant):
    with torch.device("meta"):
        model = build(variant)
    count = forward_flops(model)
    assert count >= bare_flops()
    if model.method.mergeable:
        model.method.merge(model)
        biases = sum(parameter.numel() for name, parameter in model.named_parameters() if name in model.added)
        rows = model.bare_layout.length
        assert bare_flops() <= forward_flops(model) <= min(count, bare_flops() + rows * biases)


@pytest.mark.parametrize("frames", [1, 8, 32])
def test_clip_lengths(variant, frames):
    model = lively(variant, frames=frames)
    with torch.no_grad():
        assert model(videos(1, frames=frames)).isfinite().all()
    assert parameter_counts(model)["extra"] == model.method.expected_parameters(model)


def test_published_names_stay(variant):
    published = {key: value.shape for key, value in bare().state_dict().items()}
    state = {key: value.shape for key, value in build(variant).state_dict().items()}
    assert published.items() <= state.items()


def test_same_seed_same_backbone_and_head_for_all(variant):
    model = build(variant).state_dict()
    assert all(torch.equal(value, model[key]) for key, value in bare().state_dict().items())
    again, other = build(variant).state_dict(), build(variant, seed=1).state_dict()
    assert all(torch.equal(again[key], model[key]) for key in model)
    assert not torch.equal(other["head.weight"], model["head.weight"])


def test_bare_backbone_loads_and_changes_nothing_of_what_trains(variant):
    source, model = bare(seed=3).state_dict(), build(variant)
    before = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    load_weights(model, source)
    assert all(torch.equal(model.state_dict()[key], source[key]) for key in source)
    assert {key for key, parameter in model.named_parameters() if parameter.requires_grad} == before


def test_trains_exactly_what_it_declares(variant):
    """In float64, where what is zero by construction can be told from what is small."""
    model = build(variant).double()
    declared, blind = set(model.method.trainable_parameters(model)), model.method.without_gradient(model)
    asking = {key for key, p in model.named_parameters() if p.requires_grad}
    before, largest = copy.deepcopy(model.state_dict()), dict.fromkeys(declared, 0.0)
    for _ in train(model):
        sizes = {key: p.grad.abs().max().item() for key, p in model.named_parameters() if p.grad is not None}
        most = max(sizes.values())
        largest |= {key: max(largest.get(key, 0), size / most) for key, size in sizes.items()}
    after = model.state_dict()
    moved = {key for key in after if not torch.equal(before[key], after[key])}
    wrong = {
        "asks for gradients and is not declared": asking - declared,
        "belongs to head or final norm and is not declared": {k for k in after if is_readout(k)} - declared,
        "moved and is not declared": moved - declared,
        "is declared, and no gradient reaches it": {k for k in declared if largest[k] < NONE} - set(blind),
        "is declared and did not move": declared - moved - set(blind),
        "is declared to get no gradient, and gets one": {k for k in blind if largest.get(k, 0) > SOME},
        "is declared to get no gradient, but not to train": set(blind) - declared,
        "is declared to get no gradient, without a reason": {key for key, reason in blind.items() if not reason},
    }
    assert not any(wrong.values()), "; ".join(f"{', '.join(sorted(k))}: {what}" for what, k in wrong.items() if k)


def test_slope_is_that_of_the_function(variant, monkeypatch):
    """Backward against differences, along a random direction through all that trains.

    What a method stops on purpose is let through, so that both are the slope of the same function. A step must be small
    beside the kinks of an activation and large beside rounding: that one of a few agrees is enough.
    """
    monkeypatch.setattr(torch.Tensor, "detach", lambda tensor: tensor)
    model, video = lively(variant).double().eval(), videos(2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    share = torch.randn(2, CLASSES, generator=generator, dtype=torch.float64)
    blind = model.method.without_gradient(model)
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad and key not in blind}
    grads = torch.autograd.grad((model(video) * share).sum(), list(trained.values()))
    ways = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in trained.values()]
    slope = sum((grad * way).sum() for grad, way in zip(grads, ways, strict=True)).item()
    starts, tried = [p.data.clone() for p in trained.values()], []
    for step in (1e-6, 1e-7, 1e-5):
        ends = []
        for sign in (1, -1):
            for p, start, way in zip(trained.values(), starts, ways, strict=True):
                p.data = start + sign * step * way
            with torch.no_grad():
                ends.append((model(video) * share).sum().item())
        tried.append((ends[0] - ends[1]) / (2 * step))
        if abs(tried[-1] - slope) < 1e-4 * abs(slope):
            return
    raise AssertionError(f"backward says {slope}, differences say {tried}")


def test_checkpointed_gradients_are_the_same(variant):
    """Of the whole forward pass, under drop path."""
    model, video = lively(variant, drop_path=0.3).double().train(), videos(2, dtype=torch.float64)
    trained = [p for p in model.parameters() if p.requires_grad]
    found = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        set_seed(0)
        found.append(torch.autograd.grad(run(video).square().sum(), trained, allow_unused=True))
    for plain, again in zip(*found, strict=True):
        assert (plain is None) == (again is None)
        assert plain is None or torch.equal(plain, again)


def test_autocast_to_bfloat16(variant):
    model, video = lively(variant).eval(), videos()
    exact = model(video)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(video)
        loss = F.cross_entropy(logits, torch.arange(3))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert (logits - exact).abs().max() < 0.1 * exact.abs().max()


def test_training_is_deterministic_from_the_seed(variant):
    states = []
    for _ in range(2):
        model = build(variant, drop_path=0.3)
        for _ in train(model, steps=2):
            pass
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_identity_at_the_start_where_it_is_promised(variant):
    model = build(variant).double().eval()
    if not model.method.identity_at_start:
        pytest.skip("not promised")
    with torch.no_grad():
        assert (model(videos(dtype=torch.float64)) - bare_logits()).abs().max() < 1e-12


def test_counts(variant):
    model, without = build(variant), parameter_counts(bare())
    counts = parameter_counts(model)
    assert counts["head"] == without["head"] == (32 + 1) * CLASSES
    assert counts["extra"] == counts["total"] - without["total"] == model.method.expected_parameters(model)
    assert counts["trainable"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counts["trainable"] >= counts["extra"] + counts["head"] + 32
    assert counts["tuned"] == counts["trainable"] - counts["head"] - 32  # head and final norm


def test_saved_weights_give_bit_equal_logits(variant, tmp_path):
    model = build(variant)
    backbone = copy.deepcopy(model.state_dict())
    for _ in train(model):
        pass
    save_tuned(model, tmp_path / "tuned.safetensors", {"config": "text"})
    fresh = build(variant, seed=9)
    load_weights(fresh, {key: value for key, value in backbone.items() if key not in model.added})
    assert load_tuned(fresh, tmp_path / "tuned.safetensors")["config"] == "text"
    with torch.no_grad():
        assert torch.equal(fresh.eval()(videos()), model.eval()(videos()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_clip_does_not_depend_on_its_batch(variant, dtype, tolerance):
    if "published" in variant[1].values():
        pytest.skip("an option named published may have this quirk of the public code")
    model, video = lively(variant).to(dtype).eval(), videos(dtype=dtype)
    with torch.no_grad():
        together = model(video)
        for i in range(len(video)):
            torch.testing.assert_close(model(video[i : i + 1]), together[i : i + 1], rtol=tolerance, atol=tolerance)


def test_unknown_option(variant):
    name, _ = variant
    with pytest.raises(ConfigError, match=rf"^methods\.{name}\.options\.nonsense: unknown option; .+$"):
        build_model(BACKBONE, name, CLASSES, method_options={"nonsense": 1})


def test_drop_path_is_seeded_and_off_in_eval(variant):
    model, video = build(variant, drop_path=0.5), videos(8)

    def draw(seed):
        set_seed(seed)
        with torch.no_grad():
            return model.train()(video)

    first = draw(0)
    assert torch.equal(draw(0), first)
    assert not torch.equal(draw(1), first)
    with torch.no_grad():
        assert torch.equal(model.eval()(video), build(variant).eval()(video))


def test_writes_into_no_other_module_s_output(variant):
    model, made = lively(variant), []

    def keep(_module, _given, output):
        tensors = output if isinstance(output, tuple) else (output,)
        made.extend((tensor, tensor._version, tensor.detach().clone()) for tensor in tensors)

    for module in (model.patch_embed, *model.layers, *(block.mixer for block in model.layers)):
        module.register_forward_hook(keep)
    video = videos()
    original = video.clone()
    model(video)
    assert made
    assert all(tensor._version == version and torch.equal(tensor, value) for tensor, version, value in made)
    assert torch.equal(video, original)
