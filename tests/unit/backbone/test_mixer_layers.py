"""Layers of a mixer that is trained: oneDNN products and C convolutions against PyTorch's own, in float64."""

import platform

import pytest
import torch
import torch.nn.functional as F

from ssp.backbone import mixer_layers
from ssp.backbone.mixer import Mixer
from ssp.backbone.mixer_layers import conv_silu, linear
from ssp.scan import available_backends

pytestmark = pytest.mark.usefixtures("one_thread")
onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or platform.machine() not in ("x86_64", "AMD64"), reason="no oneDNN here"
)
kernel = pytest.mark.skipif("cpu" not in available_backends(), reason="the C kernel is not built")


def close(found, expected, tolerance=2e-6):
    """Relative to the largest value, as sums of many terms are."""
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def gradients(function, inputs, grad):
    """Output and gradients of the inputs, where there are inputs."""
    leaves = [x if x is None else x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    found = torch.autograd.grad(out, [x for x in leaves if x is not None], grad.to(out.dtype))
    return [out.detach(), *found]


# ---- linear ---------------------------------------------------------------------------------------------------------


@onednn
@pytest.mark.parametrize(("inside", "outside"), [(64, 256), (128, 36), (4, 128), (96, 96)])
@pytest.mark.parametrize("layout", ["dense", "slices", "turned", "one number"])
def test_linear_and_its_gradients(inside, outside, layout):
    torch.manual_seed(0)
    x, weight, grad = torch.randn(3, 230, inside), torch.randn(outside, inside), torch.randn(3, 230, outside)
    if layout == "slices":  # as x_proj's output is cut
        x = torch.randn(3, 230, inside + 5)[..., 2 : inside + 2]
        grad = torch.randn(3, 230, 2 * outside)[..., outside:]
    elif layout == "turned":
        x, grad = (torch.randn(3, n, 230).transpose(1, 2) for n in (inside, outside))
    elif layout == "one number":
        grad = torch.tensor(0.3).expand(3, 230, outside)
    leaves = [x.detach().requires_grad_(), weight.requires_grad_()]
    out = linear(*leaves)
    found = [out.detach(), *torch.autograd.grad(out, leaves, grad)]
    for one, other in zip(found, gradients(F.linear, (x.double(), weight.double()), grad), strict=True):
        close(one, other)


@onednn
def test_linear_takes_onednn_where_it_is_faster_and_nowhere_else():
    x, weight = torch.randn(2, 300, 64), torch.randn(64, 64, requires_grad=True)
    assert linear(x, weight).grad_fn.name() == "_LinearBackward"
    assert linear(x[:1, :3], weight).grad_fn.name() != "_LinearBackward"
    assert linear(x.double(), weight.double()).grad_fn.name() != "_LinearBackward"
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(linear(x, weight), linear(x, weight.detach()))
    assert linear(x, weight.detach()).grad_fn is None


# ---- convolution ----------------------------------------------------------------------------------------------------


def plain(x, weight, bias, reverse):
    """The operation in its simplest form."""
    seen = x.flip(-1) if reverse else x
    out = F.silu(F.conv1d(F.pad(seen, (weight.shape[-1] - 1, 0)), weight, bias, groups=len(weight)))
    return out.flip(-1) if reverse else out


@kernel
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 3), (2, 4), (1, 250), (5, 70), (40, 17)])
def test_convolution_and_its_gradients(reverse, with_bias, batch, tokens):
    torch.manual_seed(0)
    channels = 37
    x = torch.randn(batch, tokens, 2 * channels)[..., channels:].transpose(1, 2)  # half of in_proj's output
    weight, bias = torch.randn(channels, 1, 4), torch.randn(channels) if with_bias else None
    grad = torch.randn(batch, channels, tokens)
    found = gradients(lambda *given: conv_silu(*(*given, None)[:3], reverse), (x, weight, bias), grad)
    in_double = [x.double(), weight.double(), bias.double() if with_bias else None]
    expected = gradients(lambda *given: plain(*given, reverse), in_double, grad)
    for one, other in zip(found, expected, strict=True):
        close(one, other)


@kernel
def test_convolution_reads_and_writes_channel_last():
    x = torch.randn(2, 9, 8).transpose(1, 2).requires_grad_()
    out = conv_silu(x, torch.randn(8, 1, 4, requires_grad=True), None, False)
    assert out.grad_fn.name() == "_ConvSiLUBackward" and out.transpose(1, 2).is_contiguous()
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.transpose(1, 2).is_contiguous()


@kernel
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_large_values_neither_overflow_nor_become_nan(size):
    x = (size * torch.tensor([-1.0, 1, -0.5, 0.5])).view(1, 1, 4).requires_grad_()
    weight, bias = torch.ones(1, 1, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    out = conv_silu(x, weight, bias, False)
    torch.testing.assert_close(out, F.silu(x))
    grads = torch.autograd.grad(out.sum(), (x, weight, bias))
    torch.testing.assert_close(grads[0], torch.tensor([[[0.0, 1, 0, 1]]]))
    torch.testing.assert_close(grads[1], 1.5 * size * torch.ones(1, 1, 1))
    torch.testing.assert_close(grads[2], torch.tensor([2.0]))


@kernel
def test_convolution_falls_back_where_the_kernels_do_not_apply(monkeypatch):
    x, weight = torch.randn(2, 8, 9), torch.randn(8, 1, 4, requires_grad=True)
    assert conv_silu(x.double(), weight.double(), None, True).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert conv_silu(x, weight, None, True).dtype == torch.bfloat16
    expected = conv_silu(x, weight, None, True)
    monkeypatch.setenv("SSP_SCAN_BACKEND", "chunked")
    out = conv_silu(x, weight, None, True)
    assert out.grad_fn.name() != "_ConvSiLUBackward"
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("function", ["linear", "conv_silu"])
def test_only_gradients_that_are_asked_for_are_computed(function, monkeypatch):
    """Each input alone gets the gradient that it gets among all, and nothing is computed for the others."""
    torch.manual_seed(0)
    if function == "linear":
        inputs, run = [torch.randn(2, 300, 64), torch.randn(64, 64)], linear
    else:
        inputs = [torch.randn(2, 40, 20).transpose(1, 2), torch.randn(20, 1, 4), torch.randn(20)]

        def run(*given):
            return conv_silu(*given, True)

    multiplied, asked, backward = [], [], mixer_layers.cpu.conv_silu_backward
    product = mixer_layers.linear
    monkeypatch.setattr(mixer_layers, "linear", lambda *given: multiplied.append(1) or product(*given))

    def watched(*given, **options):
        asked.append((given[5] is not None, options["of_weight"], options["of_bias"]))
        return backward(*given, **options)

    monkeypatch.setattr(mixer_layers.cpu, "conv_silu_backward", watched)
    grad = torch.randn_like(run(*inputs))
    _, *together = gradients(run, inputs, grad)
    for index, expected in enumerate(together):
        given = [x.detach().requires_grad_(i == index) for i, x in enumerate(inputs)]
        out = run(*given)
        multiplied.clear(), asked.clear()
        out.backward(grad)
        assert torch.equal(given[index].grad, expected)
        assert all((x.grad is None) == (i != index) for i, x in enumerate(given))
        if function == "linear" and out.grad_fn.name() == "_LinearBackward":
            assert len(multiplied) == 1
        if function == "conv_silu" and out.grad_fn.name() == "_ConvSiLUBackward":
            assert asked == [tuple(i == index for i in range(3))]


# ---- the trained mixer ----------------------------------------------------------------------------------------------


def trained(batch, tokens, dtype=torch.float32, dim=48, names=None):
    """Output, gradient of the input and of the parameters (or those named) of one mixer."""
    torch.manual_seed(0)
    mixer = Mixer(dim)
    hidden, grad = torch.randn(batch, tokens, dim), torch.randn(batch, tokens, dim)
    mixer.to(dtype).requires_grad_(names is None)
    for name in names or ():
        mixer.get_parameter(name).requires_grad_(True)
    hidden = hidden.to(dtype).requires_grad_(names is None)
    out = mixer(hidden)
    out.backward(grad.to(dtype))
    found = {name: parameter.grad for name, parameter in mixer.named_parameters() if parameter.grad is not None}
    return {"out": out.detach(), "hidden": hidden.grad} | found


@pytest.mark.parametrize(("batch", "tokens"), [(1, 2), (1, 300), (16, 40)])
def test_gradients_of_every_weight(batch, tokens):
    expected = trained(batch, tokens, torch.float64)
    found = trained(batch, tokens)
    assert found.keys() == expected.keys() and len(found) == 2 + 16
    for name, one in found.items():
        assert (one - expected[name]).abs().max() <= 2e-5 * expected[name].abs().max(), name


@pytest.mark.parametrize("names", [("conv1d.weight", "conv1d_b.bias"), ("x_proj.weight",), ("dt_proj_b.weight", "D")])
def test_a_partly_trained_mixer(names):
    """A method that trains a few weights gets their gradients, the same as among all, and no others."""
    found, among_all = trained(4, 60, names=names), trained(4, 60)
    assert set(found) == {"out", "hidden", *names} and found["hidden"] is None
    for name in ("out", *names):
        assert torch.equal(found[name], among_all[name]), name


@pytest.mark.parametrize(("batch", "tokens"), [(16, 129), (1, 700)])
def test_bits_depend_neither_on_threads_nor_on_the_run(batch, tokens):
    runs = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        runs.append(trained(batch, tokens, dim=64))
    for other in runs[1:]:
        for name, value in runs[0].items():
            assert torch.equal(value, other[name]), name
