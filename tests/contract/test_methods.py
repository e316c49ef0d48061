"""What every registered tuning method keeps to; methods are found by name, so a new one is tested by itself."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from ssp import build_model, load_weights, parameter_counts
from ssp.backbone.checkpoint import load_tuned, save_tuned
from ssp.backbone.layout import is_readout
from ssp.errors import ConfigError
from ssp.methods.registry import load_method, method_names

BACKBONE = {"embed_dim": 32, "depth": 3, "patch_size": 8}
CLASSES, FRAMES, SIDE = 5, 3, 24

VARIANTS = [(name, options) for name in method_names() for options in load_method(name).test_configs]


def label(variant):
    name, options = variant
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


pytestmark = pytest.mark.parametrize("variant", VARIANTS, ids=label)
BARE = ("linear", {})


def build(variant, seed=0, frames=FRAMES, drop_path=0.0):
    torch.manual_seed(seed)
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


def videos(batch=3, frames=FRAMES, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, 3, frames, SIDE, SIDE, generator=generator, dtype=torch.float64).to(dtype)


def train(model, steps=3):
    """Real steps without weight decay, so that only a gradient moves anything; yields after each backward."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=1e-2)
    video, labels = videos(4, dtype=trainable[0].dtype), torch.arange(4) % CLASSES
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
    json.dumps(method(options).options.model_dump(mode="json"))
    for option, space in method().sweep_space().items():
        assert option in method.Options.model_fields
        for value in space.choices or (space.low, space.high):
            method({option: value})


def test_forward(variant):
    logits = build(variant)(videos())
    assert logits.shape == (3, CLASSES)
    assert logits.isfinite().all()


def test_second_clip_length(variant):
    assert lively(variant, frames=5).double()(videos(2, frames=5, dtype=torch.float64)).isfinite().all()


def test_published_names_stay(variant):
    bare = {key: value.shape for key, value in build(BARE).state_dict().items()}
    state = {key: value.shape for key, value in build(variant).state_dict().items()}
    assert bare.items() <= state.items()


def test_same_seed_same_backbone_and_head_for_all(variant):
    bare, model = build(BARE).state_dict(), build(variant).state_dict()
    assert all(torch.equal(bare[key], model[key]) for key in bare)
    again, other = build(variant).state_dict(), build(variant, seed=1).state_dict()
    assert all(torch.equal(again[key], model[key]) for key in model)
    assert not torch.equal(other["head.weight"], model["head.weight"])


def test_bare_backbone_loads_and_changes_nothing_of_what_trains(variant):
    torch.manual_seed(5)
    source, model = build(BARE, seed=3).state_dict(), build(variant)
    before = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    load_weights(model, source)
    assert all(torch.equal(model.state_dict()[key], source[key]) for key in source)
    assert {key for key, parameter in model.named_parameters() if parameter.requires_grad} == before


def test_frozen_is_frozen_and_trainable_trains(variant):
    model = build(variant)
    declared = set(model.method.trainable_parameters(model))
    assert {key for key, p in model.named_parameters() if p.requires_grad} == declared
    assert {key for key, _ in model.named_parameters() if is_readout(key)} <= declared
    before = copy.deepcopy(model.state_dict())
    for _ in train(model):
        pass
    after = model.state_dict()
    same = {key for key in after if torch.equal(before[key], after[key])}
    assert same == set(after) - declared | set(model.method.without_gradient(model))


def test_declared_without_gradient_is_exact(variant):
    model = build(variant).double()
    declared = model.method.without_gradient(model)
    assert all(declared.values()), "every one needs its reason"
    ever = set()
    for _ in train(model):
        ever |= {key for key, p in model.named_parameters() if p.grad is not None and p.grad.count_nonzero()}
    assert set(model.method.trainable_parameters(model)) - ever == set(declared)


def test_identity_at_the_start_where_it_is_promised(variant):
    model, bare = build(variant).double().eval(), build(BARE).double().eval()
    if not model.method.identity_at_start:
        pytest.skip("not promised")
    with torch.no_grad():
        assert (model(videos(dtype=torch.float64)) - bare(videos(dtype=torch.float64))).abs().max() < 1e-12


def test_counts(variant):
    model, bare = build(variant), parameter_counts(build(BARE))
    counts = parameter_counts(model)
    assert counts["head"] == bare["head"] == (32 + 1) * CLASSES
    assert counts["extra"] == counts["total"] - bare["total"] == model.method.expected_parameters(model)
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
        torch.manual_seed(seed)
        with torch.no_grad():
            return model.train()(video)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
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
