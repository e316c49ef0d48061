"""The Triton kernels, run by Triton's interpreter on the CPU, against the reference in float64.

Triton decides at its import whether it compiles or interprets, so these run in a process of their own:
`TRITON_INTERPRET=1 pytest tests/unit/scan/interpreted.py`, which test_triton.py does. A token costs the interpreter up
to 0.1 s, so shapes are tiny and, but for one test, chunks too.
"""

import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ssp.backbone.mixer import Mixer, MixerTuning
from ssp.backbone.mixer_layers import conv_silu
from ssp.scan import BackendError, available_backends, both, choose_backend, selective_scan, triton
from ssp.scan.interface import TENSORS, Grads, ScanArgs, both_backward, both_forward
from ssp.scan.triton import convolution
from tests.unit.scan.test_scan import assert_close, compare, inputs, scan_and_grads

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="Triton does not interpret in this process"),
]


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    """Three chunks in ten tokens instead of a hundred."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton, "EVERY", 4)
        patch.setattr(triton, "TOKENS", {"forward": 2, "backward": 2})
        yield


@settings(deadline=None, max_examples=10, derandomize=True, phases=[Phase.generate])  # a failure is small as it is
@given(
    batch=st.integers(1, 2),
    channels=st.sampled_from([1, 5, 35]),
    states=st.sampled_from([1, 3, 4, 16, 22]),
    tokens=st.integers(1, 6),
    absent=st.sets(st.sampled_from(["D", "z", "delta_bias"])),
    reverse=st.booleans(),
    channel_last=st.booleans(),
    softplus=st.booleans(),
    step=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_matches_reference(batch, channels, states, tokens, absent, reverse, channel_last, softplus, step, seed):
    tensors = inputs(batch, channels, states, tokens, step=step, seed=seed, channel_last=channel_last)
    tensors = [None if name in absent else x for name, x in zip(TENSORS, tensors, strict=True)]
    if not softplus:  # step sizes are positive by contract
        tensors[1] = tensors[1].abs()
        tensors[7] = None if tensors[7] is None else tensors[7].abs()
    compare("triton", tensors, torch.float32, 1e-5, reverse=reverse, delta_softplus=softplus)


def test_nobody_gets_the_interpreter_without_asking():
    assert "triton" in available_backends() and choose_backend(torch.float32, "cpu").name != "triton"
    assert choose_backend(torch.float32, "cpu", "triton").name == "triton"
    with pytest.raises(BackendError, match="it takes cpu tensors, not cuda"):
        choose_backend(torch.float32, "cuda", "triton")
    with pytest.raises(BackendError, match="it has no float64"):
        choose_backend(torch.float64, "cpu", "triton")


def test_chunks_as_they_ship(monkeypatch):
    monkeypatch.undo()
    assert triton.EVERY % triton.TOKENS["forward"] == 0 and triton.TOKENS["backward"] % 2 == 0
    compare("triton", inputs(1, 3, 4, triton.EVERY + 3), torch.float32, 1e-5)


@pytest.mark.parametrize("states", [40, 64])
def test_many_states(states):
    compare("triton", inputs(1, 18 if states < 50 else 10, states, 3), torch.float32, 1e-5)


@pytest.mark.parametrize("shift", [-8.0, 0.0, 30.0])
def test_step_sizes_keep_their_digits(shift):
    """Small steps, as trained models have them, lose no digits in softplus; large ones do not overflow."""
    u, delta, A, B, C = inputs(1, 32, 4, 2, dtype=torch.float32)[:5]
    delta = delta + shift
    y = selective_scan(u, delta, A * 0, B.abs() + 1, C.abs() + 1, backend="triton")
    y0 = selective_scan(*(x.double() for x in (u, delta, A * 0, B.abs() + 1, C.abs() + 1)), backend="reference")
    assert ((y[..., 0].double() - y0[..., 0]) / y0[..., 0]).abs().max() < 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    rounded = [x.to(dtype if x.dim() == 3 else torch.float32) for x in inputs(1, 35, 5, 7, channel_last=True)]
    y0, grads0 = scan_and_grads([x.double() for x in rounded], backend="reference")
    y, grads = scan_and_grads(rounded, backend="triton")
    assert y.dtype == dtype and [grad.dtype for grad in grads] == [x.dtype for x in rounded]
    rounding = torch.finfo(dtype).eps
    assert_close(y, y0, rounding)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert (grad.to(dtype) - grad).abs().max() > 0  # so that gradients, too, are compared up to a rounding or two
    for found, expected in zip(grads, grads0, strict=True):
        assert_close(found, expected, 3 * rounding)


def test_strides_do_not_matter():
    wide = inputs(2, 3, 3, 2, dtype=torch.float32)
    y0, grads0 = scan_and_grads(wide, backend="triton")
    for layout in (
        lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
        lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
        lambda x: torch.cat([x, x], dim=-2)[..., : x.shape[-2], :] if x.dim() > 1 else x,
        lambda x: (
            torch.cat([x, x], dim=-2).transpose(-1, -2).contiguous().transpose(-1, -2)[..., : x.shape[-2], :]
            if x.dim() == 3
            else x
        ),
    ):
        y, grads = scan_and_grads([layout(x) for x in wide], backend="triton")
        assert torch.equal(y, y0)
        assert all(torch.equal(found, expected) for found, expected in zip(grads, grads0, strict=True))


def test_only_the_gradients_asked_for():
    args = triton.prepare(ScanArgs(*inputs(1, 3, 4, 3, dtype=torch.float32)))
    y, kept = triton.forward(args, keep=True)
    every = triton.backward(y, args, kept, Grads(*[True] * len(TENSORS)))
    for wanted in ({"u"}, {"delta"}, {"A"}, {"B"}, {"C"}, {"D"}, {"z"}, {"delta_bias"}, {"B", "z"}):
        some = triton.backward(y, args, kept, Grads(**dict.fromkeys(wanted, True)))
        for name, found, expected in zip(TENSORS, some, every, strict=True):
            assert torch.equal(found, expected) if name in wanted else found is None


@pytest.mark.parametrize("step", [1e3, 1e30])
def test_huge_steps_neither_overflow_nor_make_nan(step):
    tensors = inputs(1, 4, 4, 6, dtype=torch.float32)
    tensors[1] = tensors[1].abs() * step
    if step < 1e20:
        compare("triton", [x.double() for x in tensors], torch.float32, 1e-5)
    tensors[1] = -(tensors[1].abs() + step)  # softplus of very negative numbers: nothing comes in, nothing decays
    tensors[5] = None
    y, grads = scan_and_grads(tensors, backend="triton")
    assert all(torch.isfinite(x).all() for x in (y, *grads))
    assert y.abs().max() < 1e-20


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "z"])
def test_nan_in_gives_nan_out(name):
    tensors = dict(zip(TENSORS, inputs(1, 3, 3, 4, dtype=torch.float32), strict=True))
    tensors[name].view(-1)[0] = float("nan")
    assert selective_scan(**tensors, backend="triton").isnan().any()


# ---- two scans at once ----------------------------------------------------------------------------------------------


def pair(lengths=(5, 5), states=4):
    """A forward and a backward scan; of one length they share z, which is a part of something wider, as in a mixer."""
    made = []
    for seed, tokens in enumerate(lengths):
        u, delta, A, B, C, D, z, bias = inputs(1, 5, states, tokens, dtype=torch.float32, seed=seed, channel_last=True)
        z = made[0].z if made and lengths[0] == lengths[1] else torch.cat([z, z], dim=1)[:, 5:]
        made.append(triton.prepare(ScanArgs(u, delta, A, B, C, D, z, bias, reverse=bool(seed))))
    return made


@pytest.fixture
def launches(monkeypatch):
    """Grids of the scans' launches so far."""
    grids, run = [], triton.Launch.run

    def watched(launch):
        if "rows" in launch.args:
            grids.append(launch.grid)
        run(launch)

    monkeypatch.setattr(triton.Launch, "run", watched)
    return grids


@pytest.mark.parametrize(("lengths", "ways"), [((5, 5), [2]), ((5, 4), [1, 1])])
def test_both_directions_in_one_launch_if_they_are_alike(lengths, ways, launches):
    scans = pair(lengths)
    ys, kept = both_forward(triton, scans, keep=True)
    assert [grid[2] for grid in launches] == [way for way in ways for _ in ("pack", "scan")]
    every = Grads(*[True] * len(TENSORS))
    launches.clear()
    found = both_backward(triton, ys, scans, kept, [every, every])
    assert [grid[2] for grid in launches] == [way for way in ways for _ in ("pack", "scan")]
    for y, scan, grads in zip(ys, scans, found, strict=True):
        alone, states = triton.forward(scan, keep=True)
        assert torch.equal(y, alone)
        for one, other in zip(grads, triton.backward(alone, scan, states, every), strict=True):
            assert torch.equal(one, other)


def test_gradient_of_a_shared_gate_is_written_where_it_is_wanted():
    scans = pair()
    ys, kept = both_forward(triton, scans, keep=True)
    every = Grads(*[True] * len(TENSORS))
    apart = both_backward(triton, ys, scans, kept, [every, every])
    target = torch.full((1, 5, 10), 9.0).transpose(1, 2)
    both_backward(triton, ys, scans, kept, [every, every], target[:, 5:])
    assert torch.equal(target[:, 5:], apart[0].z + apart[1].z) and (target[:, :5] == 9).all()


def test_autograd_through_both(launches, monkeypatch):
    monkeypatch.setenv("SSP_SCAN_BACKEND", "triton")
    scans = pair()
    leaves = [[x.detach().requires_grad_() for x in scan[:8]] for scan in scans]
    ys = both(*(ScanArgs(*own, *scan[8:]) for own, scan in zip(leaves, scans, strict=True)))
    grads = torch.autograd.grad(ys[0].sum() + (ys[1] ** 2).sum(), [x for own in leaves for x in own])
    assert [grid[2] for grid in launches] == [2] * 4
    exact = [[x.detach().double().requires_grad_() for x in scan[:8]] for scan in scans]
    ys = [
        selective_scan(*own, reverse=scan.reverse, backend="reference") for own, scan in zip(exact, scans, strict=True)
    ]
    expected = torch.autograd.grad(ys[0].sum() + (ys[1] ** 2).sum(), [x for own in exact for x in own])
    for one, other in zip(grads, expected, strict=True):
        assert_close(one, other, 1e-5, floor=1e-3)


# ---- convolution with SiLU ------------------------------------------------------------------------------------------


def convolved(x, weight, bias, reverse):
    """The formula, by PyTorch."""
    reach = weight.shape[-1] - 1
    full = F.conv1d(x, weight.flip(-1) if reverse else weight, bias, padding=reach, groups=len(weight))
    return F.silu(full[..., reach:] if reverse else full[..., : x.shape[-1]])


@settings(deadline=None, max_examples=20, derandomize=True, phases=[Phase.generate])
@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 5, 64, 70]),
    tokens=st.sampled_from([1, 2, 3, 4, 31, 32, 33, 70]),
    taps=st.sampled_from([1, 2, 4]),
    with_bias=st.booleans(),
    reverse=st.booleans(),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
def test_convolution_and_its_gradients(batch, channels, tokens, taps, with_bias, reverse, half, seed):
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float16 if half else torch.float32
    xz = torch.randn(batch, tokens, 2 * channels, generator=generator).to(dtype)
    x = xz[..., channels:].transpose(1, 2)  # half of in_proj's output
    weight, bias = torch.randn(channels, 1, taps, generator=generator), torch.randn(channels, generator=generator)
    grad = torch.randn(batch, channels, tokens, generator=generator).to(dtype)
    exact = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
    expected = convolved(exact[0], exact[1], exact[2] if with_bias else None, reverse)
    of_x, of_weight, of_bias = torch.autograd.grad(expected, exact, grad.double(), allow_unused=True)

    bound = torch.finfo(dtype).eps if half else 1e-5
    y = convolution.conv_silu(x, weight, bias if with_bias else None, reverse)
    assert y.dtype == dtype and y.transpose(1, 2).is_contiguous()
    assert_close(y, expected.detach(), bound)
    into = torch.ones_like(xz).transpose(1, 2)
    given = (grad, x, weight, bias if with_bias else None, reverse)
    sums = convolution.conv_silu_backward(*given, into[:, :channels], of_weight=True, of_bias=with_bias)
    assert_close(into[:, :channels], of_x, bound)
    assert (into[:, channels:] == 1).all()
    assert_close(sums[0], of_weight, 1e-5, floor=1e-3)
    assert_close(sums[1], of_bias, 1e-5, floor=1e-3) if with_bias else None
    before = into[:, :channels].clone()
    assert convolution.conv_silu_backward(*given, into[:, :channels], add=True) == (None, None)
    assert_close(into[:, :channels], before.double() + of_x, 3 * bound)


def test_a_mixer_convolves_with_it(monkeypatch):
    """In a frozen mixer and in one that trains; and not where it does not apply."""
    started, run = [], convolution.Launch.run
    monkeypatch.setattr(
        convolution.Launch, "run", lambda launch: started.append("x_token" in launch.args) or run(launch)
    )
    monkeypatch.setenv("SSP_SCAN_BACKEND", "triton")
    for trains in (False, True):
        mixer, hidden = Mixer(4, d_state=4).requires_grad_(trains), torch.randn(1, 5, 4, requires_grad=True)
        started.clear()
        out = mixer(hidden)
        assert sum(started) == 2
        out.sum().backward()
        assert sum(started) == (4 if trains else 6)  # a frozen one recomputes what it has not kept
    started.clear()
    conv_silu(torch.randn(1, 4, 5, dtype=torch.float64), torch.randn(4, 1, 4, dtype=torch.float64), None, False)
    assert not started


class Plain(MixerTuning):
    """Nothing, by way of autograd."""

    changes_weights_only = False


@pytest.mark.parametrize("tuning", [None, Plain()])
def test_mixer(tuning, launches, monkeypatch):
    torch.manual_seed(0)
    mixer = Mixer(4, d_state=4).requires_grad_(tuning is not None)
    hidden = torch.randn(1, 5, 4, requires_grad=True)

    def run(backend):
        monkeypatch.setenv("SSP_SCAN_BACKEND", backend)
        out = mixer(hidden, tuning)
        leaves = [hidden, *(x for x in mixer.parameters() if x.requires_grad)]
        return out, torch.autograd.grad((out**2).sum(), leaves)

    out, grads = run("triton")
    assert [grid[2] for grid in launches] == [2] * 4
    expected, grads0 = run("reference")
    assert_close(out, expected, 1e-5)
    for found, wanted in zip(grads, grads0, strict=True):
        assert_close(found, wanted, 1e-5, floor=1e-3)
