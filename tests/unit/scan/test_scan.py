"""Every scan backend against the reference in float64, and the one place that chooses between them."""

import importlib.util
import logging
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssp.scan import BackendError, available_backends, dispatch, selective_scan
from ssp.scan.interface import TENSORS

pytestmark = pytest.mark.usefixtures("one_thread")
FAST = [name for name in available_backends() if name in ("cpu", "chunked")]


def inputs(batch, channels, states, tokens, *, dtype=torch.float64, step=1.0, seed=0, channel_last=False):
    """Random inputs of a scan, in the order of its arguments."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def rows(count):
        return draw(batch, tokens, count).transpose(1, 2) if channel_last else draw(batch, count, tokens)

    found = [rows(channels), rows(channels) * step, -torch.exp(draw(channels, states)), rows(states), rows(states)]
    return [x.to(dtype) for x in [*found, draw(channels), rows(channels), draw(channels)]]


def plain(u, delta, A, B, C, D=None, z=None, delta_bias=None, softplus=True):
    """The definition, differentiated by autograd."""
    d = delta if delta_bias is None else delta + delta_bias[:, None]
    d = torch.nn.functional.softplus(d) if softplus else d
    h, ys = torch.zeros_like(A), []
    for t in range(u.shape[-1]):
        h = torch.exp(d[:, :, t, None] * A) * h + (d[:, :, t] * u[:, :, t])[..., None] * B[:, None, :, t]
        ys.append((h * C[:, None, :, t]).sum(-1))
    y = torch.stack(ys, -1)
    y = y if D is None else y + D[:, None] * u
    return y if z is None else y * torch.nn.functional.silu(z)


def scan_and_grads(tensors, wanted=None, grad_seed=1, **options):
    """Output, and gradients of the tensors wanted (all by default)."""
    leaves = [
        None if x is None else x.detach().requires_grad_(wanted is None or name in wanted)
        for name, x in zip(TENSORS, tensors, strict=True)
    ]
    y = options.pop("function", selective_scan)(*leaves, **options)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(grad_seed), dtype=torch.float64)
    asked = [x for x in leaves if x is not None and x.requires_grad]
    return y.detach(), torch.autograd.grad(y, asked, grad.to(y))


def assert_close(found, expected, tolerance, floor=0.0):
    """Largest difference within `tolerance` of the largest value."""
    assert found.shape == expected.shape
    assert torch.isfinite(found).all()
    assert (found.double() - expected.double()).abs().max() <= tolerance * expected.abs().max().clamp(min=floor)


def compare(backend, tensors64, dtype, tolerance, **options):
    """One backend in a dtype against the reference in float64: output and all gradients."""
    y0, grads0 = scan_and_grads(tensors64, backend="reference", **options)
    cast = [x if x is None else x.to(dtype) for x in tensors64]
    y, grads = scan_and_grads(cast, backend=backend, **options)
    assert y.dtype == dtype
    assert_close(y, y0, tolerance)
    for found, expected in zip(grads, grads0, strict=True):
        assert_close(found, expected, tolerance, floor=1e-3)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("shape", [(2, 5, 3, 17), (1, 4, 2, 1), (3, 7, 16, 50)])
def test_equals_autograd_through_the_definition(backend, shape):
    tensors = inputs(*shape)
    y0, grads0 = scan_and_grads(tensors, function=plain)
    y, grads = scan_and_grads(tensors, backend=backend)
    assert_close(y, y0, 1e-12)
    for found, expected in zip(grads, grads0, strict=True):
        assert_close(found, expected, 1e-12, floor=1e-9)


@pytest.mark.parametrize("backend", FAST)
@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 70),
    states=st.sampled_from([1, 2, 16, 22]),
    tokens=st.integers(1, 100),
    absent=st.sets(st.sampled_from(["D", "z", "delta_bias"])),
    reverse=st.booleans(),
    channel_last=st.booleans(),
    softplus=st.booleans(),
    step=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_matches_reference(
    backend, batch, channels, states, tokens, absent, reverse, channel_last, softplus, step, seed
):
    tensors = inputs(batch, channels, states, tokens, step=step, seed=seed, channel_last=channel_last)
    tensors = [None if name in absent else x for name, x in zip(TENSORS, tensors, strict=True)]
    if not softplus:  # step sizes are positive by contract
        tensors[1] = tensors[1].abs()
        tensors[7] = None if tensors[7] is None else tensors[7].abs()
    compare(backend, tensors, torch.float32, 1e-4, reverse=reverse, delta_softplus=softplus)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("states", [22, 256])
def test_many_states(backend, states):
    compare(backend, inputs(2, 20, states, 40), torch.float32, 1e-4)


@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_reverse_equals_flip_scan_flip(backend):
    tensors = inputs(2, 9, 4, 37, dtype=torch.float32)
    y, grads = scan_and_grads(tensors, backend=backend, reverse=True)
    flipped = [x.flip(-1) if x.dim() == 3 else x for x in tensors]
    leaves = [x.requires_grad_() for x in flipped]
    y0 = selective_scan(*leaves, backend=backend)
    assert_close(y, y0.flip(-1), 1e-6)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).float().flip(-1)
    for found, expected in zip(grads, torch.autograd.grad(y0, leaves, grad), strict=True):
        assert_close(found, expected.flip(-1) if expected.dim() == 3 else expected, 1e-6)


@pytest.mark.parametrize("backend", FAST)
def test_strides_do_not_matter(backend):
    wide = inputs(2, 12, 4, 60, dtype=torch.float32)
    y0, grads0 = scan_and_grads(wide, backend=backend)
    for layout in (
        lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
        lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
        lambda x: torch.cat([x, x], dim=-2)[..., : x.shape[-2], :] if x.dim() > 1 else x,
    ):
        y, grads = scan_and_grads([layout(x) for x in wide], backend=backend)
        assert_close(y, y0, 1e-6)
        for found, expected in zip(grads, grads0, strict=True):
            assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("backend", FAST)
def test_expanded_inputs(backend):
    tensors = inputs(3, 8, 4, 20, dtype=torch.float32)
    tensors[6] = tensors[6][:1, :, :1].expand(3, 8, 20)
    dense = [*tensors[:6], tensors[6].contiguous(), tensors[7]]
    assert_close(selective_scan(*tensors, backend=backend), selective_scan(*dense, backend=backend), 1e-6)


@pytest.mark.parametrize("backend", [*FAST, "reference"])
@pytest.mark.parametrize("wanted", [{"u"}, {"delta"}, {"A"}, {"B"}, {"C"}, {"D"}, {"z"}, {"delta_bias"}, {"B", "z"}])
def test_only_the_gradients_asked_for(backend, wanted):
    tensors = inputs(2, 40, 5, 40, dtype=torch.float32)
    _, every = scan_and_grads(tensors, backend=backend)
    _, some = scan_and_grads(tensors, wanted, backend=backend)
    for found, expected in zip(some, [g for n, g in zip(TENSORS, every, strict=True) if n in wanted], strict=True):
        assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("backend", FAST)
def test_a_gradient_not_needed_is_not_computed(backend, monkeypatch):
    module, asked = dispatch.load(backend), []
    original = module.backward
    monkeypatch.setattr(module, "backward", lambda g, a, k, needs: asked.append(needs) or original(g, a, k, needs))
    scan_and_grads(inputs(1, 4, 2, 9, dtype=torch.float32), {"u", "C"}, backend=backend)
    assert [name for name, need in zip(TENSORS, asked[0], strict=True) if need] == ["u", "C"]
    if backend == "cpu":  # no storage is even made for the others
        u, C = torch.zeros(1, 4, 9), torch.zeros(1, 2, 9)
        args = dispatch.ScanArgs(u, u, torch.zeros(4, 2), C, C)
        _, kept = module.forward(args, keep=True)
        found = original(u, args, kept, asked[0])
        assert [name for name, grad in zip(TENSORS, found, strict=True) if grad is not None] == ["u", "C"]


@pytest.mark.parametrize("backend", [*FAST, "reference"])
@pytest.mark.parametrize("step", [1e3, 1e6, 1e30])
def test_huge_steps_neither_overflow_nor_make_nan(backend, step):
    tensors = inputs(1, 20, 16, 70, dtype=torch.float32)
    tensors[1] = tensors[1].abs() * step
    if step < 1e20:  # beyond, d * u * B is itself near the largest float32
        y, grads = scan_and_grads(tensors, backend=backend)
        assert all(torch.isfinite(x).all() for x in (y, *grads))
        compare(backend, [x.double() for x in tensors], torch.float32, 1e-4)
    tensors[1] = -(tensors[1].abs() + step)  # softplus of very negative numbers: nothing comes in, nothing decays
    tensors[5] = None
    y, grads = scan_and_grads(tensors, backend=backend)
    assert all(torch.isfinite(x).all() for x in (y, *grads))
    assert y.abs().max() < 1e-20


@pytest.mark.parametrize("backend", [*FAST, "reference"])
@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "z"])
def test_nan_in_gives_nan_out(backend, name):
    tensors = dict(zip(TENSORS, inputs(1, 6, 3, 40, dtype=torch.float32), strict=True))
    tensors[name].view(-1)[0] = float("nan")
    assert selective_scan(**tensors, backend=backend).isnan().any()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(backend, dtype):
    tensors = [x.to(dtype) for x in inputs(2, 6, 3, 30)]
    y, grads = scan_and_grads(tensors, backend=backend)
    y0, grads0 = scan_and_grads([x.float() for x in tensors], backend=backend)
    assert y.dtype == dtype and all(grad.dtype == dtype for grad in grads)
    assert_close(y, y0, 1e-2)
    for found, expected in zip(grads, grads0, strict=True):
        assert_close(found, expected, 2e-2)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("u", (2, 5)),
        ("u", (2, 5, 0)),
        ("delta", (2, 5, 8)),
        ("A", (4, 3)),
        ("A", (5,)),
        ("B", (2, 4, 9)),
        ("C", (1, 3, 9)),
        ("D", (4,)),
        ("z", (2, 9, 5)),
        ("delta_bias", (1, 5)),
    ],
)
def test_wrong_shapes_name_argument_and_shape(name, shape):
    tensors = dict(zip(TENSORS, inputs(2, 5, 3, 9), strict=True)) | {name: torch.zeros(shape)}
    with pytest.raises(ValueError, match=rf"selective_scan: {name} must .*got \({', '.join(map(str, shape))}"):
        selective_scan(**tensors)


def test_wrong_kinds_are_refused():
    tensors = dict(zip(TENSORS, inputs(2, 5, 3, 9), strict=True))
    with pytest.raises(ValueError, match="B must be a real floating-point tensor"):
        selective_scan(**tensors | {"B": tensors["B"].long()})
    with pytest.raises(ValueError, match="z is on meta, but u is on cpu"):
        selective_scan(**tensors | {"z": tensors["z"].to("meta")})


# ---- the choice -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch):
    """The module as another process imports it: it has not chosen or said anything yet."""
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    spec = importlib.util.find_spec("ssp.scan.dispatch")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_portable_backends_are_always_there():
    assert available_backends()[-2:] == ["chunked", "reference"]


def test_float64_always_works(fresh):
    assert fresh.choose_backend(torch.float64).name == "chunked"
    assert fresh.selective_scan(*inputs(1, 2, 2, 5)).dtype == torch.float64


def test_argument_beats_variable_beats_automatic(fresh, monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    assert fresh.choose_backend() == ("reference", "asked for by SSP_SCAN_BACKEND")
    assert fresh.choose_backend(backend="chunked") == ("chunked", "asked for by argument")


def test_variable_yields_where_it_does_not_fit(fresh, monkeypatch):
    monkeypatch.setattr(dispatch.load("cpu"), "unavailable", lambda: None)
    monkeypatch.setenv(dispatch.VARIABLE, "cpu")
    name, reason = fresh.choose_backend(torch.float64)
    assert name == "chunked" and "SSP_SCAN_BACKEND=cpu does not fit: it has no float64" in reason


def test_tensors_without_numbers_have_a_scan_and_gradients_of_their_shapes(fresh, monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, "reference")
    assert fresh.choose_backend(torch.float32, "meta").name == "shapes"
    tensors = [tensor.to("meta").requires_grad_() for tensor in inputs(2, 5, 3, 9, dtype=torch.float32)]
    y = fresh.selective_scan(*tensors)
    assert (y.shape, y.is_meta) == ((2, 5, 9), True)
    found = torch.autograd.grad(y, tensors, torch.empty_like(y))
    assert [grad.shape for grad in found] == [tensor.shape for tensor in tensors]
    with pytest.raises(BackendError, match="'shapes' cannot be used: it computes nothing"):
        fresh.choose_backend(torch.float32, "cpu", "shapes")


@pytest.mark.parametrize("where", ["argument", "variable"])
@pytest.mark.parametrize("name", ["cpu", "turbo"])
def test_asking_for_what_is_not_there_is_one_clear_line(fresh, monkeypatch, where, name):
    monkeypatch.setattr(dispatch.load("cpu"), "unavailable", lambda: "it is out")
    if where == "variable":
        monkeypatch.setenv(dispatch.VARIABLE, name)
    said = {"cpu": "it is out", "turbo": "unknown scan backend 'turbo'; there are: cpu, triton"}[name]
    with pytest.raises(BackendError, match=said) as error:
        fresh.selective_scan(*inputs(1, 2, 2, 5, dtype=torch.float32), backend=name if where == "argument" else None)
    assert isinstance(error.value, ValueError) and "\n" not in str(error.value)


def test_explicit_backend_that_lacks_the_dtype_raises(fresh, monkeypatch):
    monkeypatch.setattr(dispatch.load("cpu"), "unavailable", lambda: None)
    with pytest.raises(BackendError, match="'cpu' cannot be used: it has no float64"):
        fresh.selective_scan(*inputs(1, 2, 2, 5), backend="cpu")


def test_choice_is_logged_once_with_its_reason(fresh, monkeypatch, caplog):
    monkeypatch.setattr(dispatch.load("cpu"), "unavailable", lambda: None)
    with caplog.at_level(logging.INFO, "ssp.scan"):
        for _ in range(3):
            fresh.selective_scan(*inputs(1, 2, 2, 5, dtype=torch.float32), backend="chunked")
            fresh.choose_backend()
    assert len([r for r in caplog.records if "chunked (asked for by argument)" in r.message]) == 1
    assert len([r for r in caplog.records if "cpu (first that fits float32 on cpu)" in r.message]) == 1


@pytest.mark.parametrize(("device", "kernel"), [("cpu", "cpu"), ("cuda", "triton")])
def test_no_kernel_warns_loudly_once(fresh, monkeypatch, device, kernel):
    monkeypatch.setattr(dispatch.load(kernel), "unavailable", lambda: "it is out")
    with pytest.warns(RuntimeWarning, match=f"no accelerated selective scan on {device}: it is out"):
        choice = fresh.choose_backend(torch.float32, device)
    assert choice.name == "chunked" and f"not {kernel}: it is out" in choice.reason
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fresh.choose_backend(torch.float32, f"{device}:0") == choice  # another device of the same kind


@pytest.mark.slow
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(
    ("batch", "channels", "states", "tokens"),
    [(1, 192, 16, 1569), (1, 384, 22, 1569), (1, 1152, 16, 1569), (16, 192, 16, 200), (1, 192, 16, 6273)],
)
def test_real_shapes(backend, batch, channels, states, tokens):
    cast = inputs(batch, channels, states, tokens, dtype=torch.float32, channel_last=True)
    cast[1] -= 2.0
    y0, grads0 = scan_and_grads(cast, backend="reference", reverse=True)  # float32 too: as exact, half the time
    y, grads = scan_and_grads(cast, backend=backend, reverse=True)
    assert_close(y, y0, 1e-4)
    for found, expected in zip(grads, grads0, strict=True):
        assert_close(found, expected, 1e-4)


# ---- on a GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("backend", ["triton", "mamba_ssm", "chunked"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("tokens", [1569, 6273])
@pytest.mark.parametrize("reverse", [False, True])
def test_gpu_parity(backend, dtype, tolerance, tokens, reverse):
    if backend not in available_backends():
        pytest.skip(dispatch.load(backend).unavailable())
    tensors = inputs(1, 96, 16, tokens)
    tensors[1] -= 2.0
    rounded = [x.to(dtype if x.dim() == 3 else torch.float32).cuda() for x in tensors]
    y0, grads0 = scan_and_grads([x.double() for x in rounded], backend="chunked", reverse=reverse)
    leaves = [x.requires_grad_() for x in rounded]
    y = selective_scan(*leaves, backend=backend, reverse=reverse)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    assert_close(y.detach(), y0, tolerance)
    for found, expected in zip(torch.autograd.grad(y, leaves, grad), grads0, strict=True):
        assert_close(found, expected, tolerance)
