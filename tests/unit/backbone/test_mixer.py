"""The mixer: published numbers, the frozen path against the plain one, and what tuning methods may do to it."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ssp.backbone import mixer_function
from ssp.backbone.mixer import Mixer, MixerTuning, ScanInputs
from ssp.scan import available_backends

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parents[2] / "golden" / "videomamba_published.npz"


class Nothing(MixerTuning):
    """A tuning that does nothing, and forces the plain path."""

    def streams(self, direction, x, z):
        return x, z


def make(dim=24, dtype=torch.float32, frozen=True, **options):
    """A mixer with weights that all matter."""
    torch.manual_seed(0)
    mixer = Mixer(dim, **options)
    with torch.no_grad():
        for name, parameter in mixer.named_parameters():
            if name.startswith("D"):
                parameter.add_(torch.randn_like(parameter))
            if "A_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer.to(dtype).requires_grad_(not frozen)


def run(mixer, hidden, tuning=None):
    """Output, gradient of the input, and the name of the graph's last node."""
    hidden = hidden.detach().requires_grad_()
    out = mixer(hidden, tuning)
    grad = torch.cos(torch.arange(out.numel(), device=out.device)).view_as(out).to(out.dtype)
    return out.detach(), torch.autograd.grad(out, hidden, grad)[0], out.grad_fn.name()


# ---- published numbers ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.exists(), reason="golden numbers are not here")
@pytest.mark.parametrize("tuning", [None, Nothing()])
def test_blocks_of_the_published_implementation(tuning):
    golden = np.load(GOLDEN)
    config = json.loads(bytes(golden["config"]))
    for index in range(config["depth"]):
        prefix = f"state/layers.{index}."
        mixer = Mixer(config["embed_dim"]).double().requires_grad_(False)
        state = {key: torch.from_numpy(golden[key]) for key in golden.files if key.startswith(prefix + "mixer.")}
        mixer.load_state_dict({key.removeprefix(prefix + "mixer."): value for key, value in state.items()})
        norm = torch.from_numpy(golden[prefix + "norm.weight"]).double()
        normed = nn.functional.rms_norm(torch.from_numpy(golden[f"residual/{index}"]), norm.shape, norm, 1e-5)
        out = mixer(normed.requires_grad_(), tuning)
        assert (out - torch.from_numpy(golden[f"hidden/{index}"])).abs().max() < 1e-9


def test_initial_values_are_those_of_mamba():
    torch.manual_seed(0)
    mixer = Mixer(40)
    for end in ("", "_b"):
        steps = nn.functional.softplus(mixer.get_submodule(f"dt_proj{end}").bias)
        assert steps.min() > 0.9e-3 and steps.max() < 0.11
        assert (mixer.get_parameter(f"D{end}") == 1).all()
        rates = torch.exp(mixer.get_parameter("A_b_log" if end else "A_log"))
        torch.testing.assert_close(rates, torch.arange(1.0, 17).repeat(80, 1))
    assert mixer.x_proj.weight.shape == (3 + 32, 80)  # dt_rank = ceil(40 / 16)
    assert mixer.in_proj.bias is None and mixer.x_proj.bias is None and mixer.out_proj.bias is None


def test_directions_mirror_each_other():
    """With the two directions' weights exchanged, the reversed sequence gives the reversed output."""
    mixer = make()
    mirrored = copy.deepcopy(mixer)
    names = {"A_log": "A_b_log", "D": "D_b", "conv1d": "conv1d_b", "x_proj": "x_proj_b", "dt_proj": "dt_proj_b"}
    names |= {back: front for front, back in names.items()}
    state = mixer.state_dict()
    swapped = {".".join([names.get(k.split(".")[0], k.split(".")[0]), *k.split(".")[1:]]): v for k, v in state.items()}
    mirrored.load_state_dict(swapped)
    hidden = torch.randn(2, 19, 24)
    for tuning in (None, Nothing()):
        torch.testing.assert_close(mirrored(hidden.flip(1), tuning).flip(1), mixer(hidden, tuning))


# ---- the frozen path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("backend", [None, "chunked", "reference"])
@pytest.mark.parametrize(("batch", "tokens", "dim"), [(2, 37, 24), (1, 1, 24), (16, 70, 33), (3, 3, 8)])
def test_frozen_equals_plain(dtype, tolerance, backend, batch, tokens, dim, monkeypatch):
    if backend:
        monkeypatch.setenv("SSP_SCAN_BACKEND", backend)
    mixer = make(dim, dtype)
    hidden = torch.randn(batch, tokens, dim, dtype=dtype)
    out0, grad0, _ = run(mixer, hidden, Nothing())
    out, grad, node = run(mixer, hidden)
    assert node == "MixerFunctionBackward"
    assert (out - out0).abs().max() <= tolerance * out0.abs().max()
    assert (grad - grad0).abs().max() <= tolerance * grad0.abs().max()
    with torch.no_grad():
        assert torch.equal(mixer(hidden), out)


def test_frozen_gradient_is_the_derivative():
    mixer = make(6, torch.float64, d_state=3)
    hidden = torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixer, hidden)


def test_other_sizes_of_state_and_kernel():
    mixer = make(16, d_state=5, d_conv=7, expand=3, dt_rank=4)
    out0, grad0, _ = run(mixer, torch.randn(2, 11, 16), Nothing())
    torch.manual_seed(1)
    hidden = torch.randn(2, 11, 16)
    out0, grad0, _ = run(mixer, hidden, Nothing())
    out, grad, _ = run(mixer, hidden)
    torch.testing.assert_close(out, out0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grad, grad0, atol=1e-5, rtol=1e-5)


def test_non_contiguous_input_and_gradient():
    mixer = make()
    hidden = torch.randn(24, 31, 2).permute(2, 1, 0)
    out0, grad0, _ = run(mixer, hidden.contiguous())
    leaf = hidden.requires_grad_()
    out = mixer(leaf)
    torch.testing.assert_close(out, out0)
    weights = torch.cos(torch.arange(out.numel())).view_as(out)
    (grad,) = torch.autograd.grad(out, leaf, weights.transpose(1, 2).contiguous().transpose(1, 2))
    torch.testing.assert_close(grad, grad0)
    (grad,) = torch.autograd.grad(mixer(leaf).sum(), leaf)  # an expanded scalar as gradient
    (same,) = torch.autograd.grad((mixer(leaf) * torch.ones_like(out)).sum(), leaf)
    torch.testing.assert_close(grad, same)


@pytest.mark.skipif("cpu" not in available_backends(), reason="the C kernel is not built")
def test_frozen_holds_far_less_than_autograd():
    mixer, hidden = make(192), torch.randn(1, 256, 192, requires_grad=True)

    def held(tuning):
        sizes = {}

        def pack(x):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            mixer(hidden, tuning)
        known = {x.untyped_storage().data_ptr() for x in (*mixer.parameters(), hidden)}
        return sum(size for pointer, size in sizes.items() if pointer not in known)

    assert held(None) <= 0.38 * held(Nothing())


def test_one_trainable_weight_makes_it_plain():
    mixer = make()
    for name, parameter in mixer.named_parameters():
        parameter.requires_grad_(True)
        out = mixer(torch.randn(2, 9, 24))
        (grad,) = torch.autograd.grad(out.square().sum(), parameter)
        assert grad.abs().max() > 0, name
        parameter.requires_grad_(False)


def test_evaluation_of_a_trainable_mixer_takes_the_cheap_route(monkeypatch):
    mixer, hidden, calls = make(frozen=False), torch.randn(2, 9, 24), []
    original = mixer_function.run
    monkeypatch.setattr(mixer_function, "run", lambda *args: calls.append(1) or original(*args))
    expected = mixer(hidden)
    assert not calls
    with torch.no_grad():
        torch.testing.assert_close(mixer(hidden), expected)
    assert calls


@pytest.mark.parametrize("name", ["in_proj", "conv1d", "conv1d_b", "x_proj", "dt_proj_b", "out_proj"])
@pytest.mark.parametrize("how", ["hook", "wrapped"])
def test_a_layer_that_is_more_than_its_weights_is_called(name, how):
    class Doubled(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.scale = layer, nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.layer(x) * (1 + self.scale)

    mixer, hidden = make(), torch.randn(2, 9, 24)
    expected = mixer(hidden)
    layer = mixer.get_submodule(name)
    if how == "hook":
        layer.register_forward_hook(lambda module, given, out: 2 * out)
        assert not torch.allclose(mixer(hidden), expected)
        return
    setattr(mixer, name, Doubled(layer))
    out = mixer(hidden)
    assert not torch.allclose(out, expected)
    (grad,) = torch.autograd.grad(out.sum(), mixer.get_submodule(name).scale)
    assert grad.abs() > 0
    with torch.no_grad():
        mixer.get_submodule(name).scale.zero_()
        torch.testing.assert_close(mixer(hidden), expected)


@pytest.mark.parametrize("name", ["in_proj", "x_proj_b", "out_proj"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_bias_that_is_put_in_counts(name, frozen):
    mixer, hidden = make(frozen=frozen), torch.randn(2, 9, 24)
    expected, layer = mixer(hidden), mixer.get_submodule(name)
    layer.bias = nn.Parameter(torch.zeros(layer.out_features), requires_grad=not frozen)
    torch.testing.assert_close(mixer(hidden), expected)
    with torch.no_grad():
        layer.bias.fill_(0.5)
    assert not torch.allclose(mixer(hidden), expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_hooks_of_the_backward_are_called(frozen):
    mixer, seen = make(frozen=frozen), []
    mixer.x_proj.register_full_backward_pre_hook(lambda layer, grads: seen.append("before"))
    mixer.conv1d.register_full_backward_hook(lambda layer, given, grads: seen.append("after"))
    mixer(torch.randn(2, 9, 24, requires_grad=True)).sum().backward()
    assert sorted(seen) == ["after", "before"]


def test_autocast_runs_both_paths_alike():
    mixer, hidden = make(), torch.randn(2, 33, 24)
    exact, exact_grad, _ = run(mixer, hidden)
    with torch.autocast("cpu", torch.bfloat16):
        out, grad, node = run(mixer, hidden)
        out0, grad0, _ = run(mixer, hidden, Nothing())
    assert node != "MixerFunctionBackward" or out.dtype == out0.dtype == torch.bfloat16
    assert grad.dtype == grad0.dtype == torch.float32
    for found, expected in ((out, exact), (out0, exact), (grad, exact_grad), (grad0, exact_grad)):
        assert (found - expected).abs().max() < 0.03 * expected.abs().max()


# ---- tuning methods -------------------------------------------------------------------------------------------------


class MoreStates(MixerTuning):
    """Two more states per direction, as additional-scan tuning adds them."""

    def __init__(self, channels, dtype=torch.float32):
        self.A = nn.Parameter(torch.randn(channels, 2, dtype=dtype))
        self.W = nn.Parameter(0.1 * torch.randn(4, channels, dtype=dtype))

    def scan_inputs(self, direction, inputs):
        extra_B, extra_C = (self.W @ inputs.u).chunk(2, dim=1)
        return ScanInputs(
            **vars(inputs)
            | {
                "A": torch.cat([inputs.A, -torch.exp(self.A)], dim=1),
                "B": torch.cat([inputs.B, extra_B], dim=1),
                "C": torch.cat([inputs.C, extra_C], dim=1),
            }
        )


def test_more_states():
    mixer, hidden = make(), torch.randn(2, 9, 24)
    tuning = MoreStates(48)
    out = mixer(hidden, tuning)
    assert all(grad.abs().max() > 0 for grad in torch.autograd.grad(out.square().sum(), [tuning.A, tuning.W]))
    with torch.no_grad():
        tuning.W[2:] = 0  # C rows: nothing is read from the new states
        torch.testing.assert_close(mixer(hidden, tuning), mixer(hidden))


def test_a_tuning_in_float64_is_followed():
    mixer, hidden = make(), torch.randn(2, 9, 24)
    tuning = MoreStates(48, torch.float64)
    tuning.scan_inputs = lambda direction, inputs: MoreStates.scan_inputs(
        tuning, direction, ScanInputs(**{name: x.double() for name, x in vars(inputs).items()})
    )
    mixer.out_proj.double()
    out = mixer(hidden, tuning)
    assert out.dtype == torch.float64
    assert all(grad.dtype == torch.float64 for grad in torch.autograd.grad(out.sum(), [tuning.A, tuning.W]))


def test_hooks_get_direction_streams_and_shapes():
    seen = []

    class Watch(MixerTuning):
        def streams(self, direction, x, z):
            seen.append((direction, tuple(x.shape), tuple(z.shape)))
            return x, torch.zeros_like(z) if direction == "backward" else z

        def scan_inputs(self, direction, inputs):
            seen.append((direction, tuple(inputs.A.shape), tuple(inputs.B.shape), tuple(inputs.delta_bias.shape)))
            return inputs

    mixer, hidden = make(), torch.randn(2, 9, 24)
    out = mixer(hidden, Watch())
    shapes = ((48, 16), (2, 16, 9), (48,))
    expected = []
    for direction in ("forward", "backward"):
        expected += [(direction, (2, 48, 9), (2, 48, 9)), (direction, *shapes)]
    assert seen == expected
    later = hidden.clone()
    later[:, 5:] += 1  # with the backward gate shut nothing looks ahead
    torch.testing.assert_close(mixer(later, Watch())[:, :5], out[:, :5])
    assert not torch.allclose(mixer(later)[:, :5], mixer(hidden)[:, :5])


# ---- on a GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("tokens", [1569, 6273])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize("backend", ["triton", "mamba_ssm", "chunked"])
def test_gpu_parity(tokens, dtype, tolerance, backend, monkeypatch):
    if backend not in available_backends():
        pytest.skip(f"{backend} is not available here")
    mixer, hidden = make(64), torch.randn(1, tokens, 64)
    monkeypatch.setenv("SSP_SCAN_BACKEND", "chunked")
    out0, grad0, _ = run(mixer.double(), hidden.double())
    monkeypatch.setenv("SSP_SCAN_BACKEND", backend)
    mixer = mixer.float().cuda()
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        for tuning in (None, Nothing()):
            out, grad, _ = run(mixer, hidden.cuda(), tuning)
            assert (out.cpu() - out0).abs().max() <= tolerance * out0.abs().max()
            assert (grad.cpu() - grad0).abs().max() <= tolerance * grad0.abs().max()


# ---- weights that a method makes ------------------------------------------------------------------------------------


class AddedWeights(MixerTuning):
    """Adds something learned to every weight, biases of the linear layers included."""

    def __init__(self, mixer):
        own = mixer.weights()
        biases = {"in_proj_bias": own.in_proj[:, 0], "out_proj_bias": own.out_proj[:, 0]}
        self.outer = {name: self._learned(biases.get(name, x)) for name, x in own._asdict().items() if name in NAMES}
        self.inner = [
            {
                name: self._learned(way.x_proj[:, 0] if name == "x_proj_bias" else x)
                for name, x in way._asdict().items()
                if name != "reverse"
            }
            for way in own.directions
        ]

    @staticmethod
    def _learned(like):
        return nn.Parameter(0.1 * torch.randn_like(like))

    @property
    def learned(self):
        return [*self.outer.values(), *(x for way in self.inner for x in way.values())]

    def weights(self, weights):
        def added(values, learned):
            return values._replace(
                **{name: x if (w := getattr(values, name)) is None else w + x for name, x in learned.items()}
            )

        ways = tuple(added(way, learned) for way, learned in zip(weights.directions, self.inner, strict=True))
        return added(weights, self.outer)._replace(directions=ways)


class AddedWeightsPlain(AddedWeights):
    """The same, and a hook that forces the route of autograd."""

    def streams(self, direction, x, z):
        return x, z


NAMES = ("in_proj", "in_proj_bias", "out_proj", "out_proj_bias")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("backend", [None, "chunked"])
@pytest.mark.parametrize("kernel", [4, 3])
def test_gradients_of_made_weights_are_those_of_autograd(dtype, tolerance, backend, kernel, monkeypatch):
    if backend:
        monkeypatch.setenv("SSP_SCAN_BACKEND", backend)
    mixer, hidden = make(24, dtype, d_conv=kernel), torch.randn(2, 37, 24, dtype=dtype)
    by_hand, plain = AddedWeights(mixer), AddedWeightsPlain(mixer)
    plain.outer, plain.inner = by_hand.outer, by_hand.inner
    found = []
    for tuning in (by_hand, plain):
        leaf = hidden.clone().requires_grad_()
        out = mixer(leaf, tuning)
        weights = torch.cos(torch.arange(out.numel(), dtype=dtype)).view_as(out)
        found.append((out.grad_fn.name(), [out, *torch.autograd.grad(out, [leaf, *by_hand.learned], weights)]))
    (node, ours), (_, theirs) = found
    assert node == "MixerFunctionBackward"
    assert len(ours) == 2 + 4 + 2 * 8
    for mine, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 0
        assert (mine - other).abs().max() <= tolerance * other.abs().max()


def test_only_gradients_that_are_asked_for_are_computed():
    mixer = make()
    learned = nn.Parameter(torch.zeros(96, 24))

    class InProj(MixerTuning):
        def weights(self, weights):
            return weights._replace(in_proj=weights.in_proj + learned)

    out = mixer(torch.randn(2, 9, 24), InProj())  # hidden itself asks for none
    (grad,) = torch.autograd.grad(out.square().sum(), learned)
    assert grad.abs().max() > 0
