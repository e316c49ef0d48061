"""The C kernels: every instruction set, threads, forks, and another processor."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from ssp.scan import available_backends, build, selective_scan
from ssp.scan.interface import TENSORS

ROOT = Path(__file__).parents[3]
ready = pytest.mark.skipif("cpu" not in available_backends(), reason="the C kernel is not built")
cpu = pytest.importorskip("ssp.scan.cpu")


def inputs(batch, channels, states, tokens, seed=0):
    """Random float32 inputs in channel-last storage."""
    generator = torch.Generator().manual_seed(seed)

    def rows(count):
        return torch.randn(batch, tokens, count, generator=generator).transpose(1, 2)

    A = -torch.exp(torch.randn(channels, states, generator=generator))
    vectors = torch.randn(2, channels, generator=generator)
    return [rows(channels), rows(channels), A, rows(states), rows(states), vectors[0], rows(channels), vectors[1]]


def everything(tensors, **options):
    """Output and all gradients."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    y = selective_scan(*leaves, **options)
    return [y.detach(), *torch.autograd.grad(y, leaves, torch.cos(torch.arange(y.numel())).view_as(y).to(y))]


def assert_all_close(found, expected, tolerance=1e-4):
    for name, x, y in zip(["y", *TENSORS], found, expected, strict=True):
        assert (x - y).abs().max() <= tolerance * y.abs().max(), name


@ready
@pytest.mark.parametrize("isa", ["base", "v3", "v4"])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_instruction_set_is_correct(isa, reverse, monkeypatch):
    monkeypatch.delenv("SSP_SCAN_ISA", raising=False)
    if cpu.level() < cpu.LEVELS[isa]:
        pytest.skip(f"this processor has no {isa}")
    monkeypatch.setenv("SSP_SCAN_ISA", isa)
    assert cpu.level() == cpu.LEVELS[isa]
    for shape, step in (((2, 70, 22, 75), 1), ((1, 16, 16, 33), 100), ((1, 5, 1, 32), 1)):
        tensors = inputs(*shape)
        tensors[1] = tensors[1] * step
        expected = everything([x.double() for x in tensors], backend="reference", reverse=reverse)
        assert_all_close(everything(tensors, backend="cpu", reverse=reverse), expected)


@ready
@pytest.mark.parametrize("isa", ["base", "v3", "v4"])
@pytest.mark.parametrize("taps", [1, 2, 4, 11])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("channels", "tokens"), [(37, 50), (16, 1), (3, 3)])
def test_convolution(isa, taps, reverse, channels, tokens, monkeypatch):
    monkeypatch.delenv("SSP_SCAN_ISA", raising=False)
    if cpu.level() < cpu.LEVELS[isa]:
        pytest.skip(f"this processor has no {isa}")
    monkeypatch.setenv("SSP_SCAN_ISA", isa)
    torch.manual_seed(0)
    x = torch.randn(3, tokens, channels).transpose(1, 2).requires_grad_()
    weight = torch.randn(channels, 1, taps, requires_grad=True)
    for b in (torch.randn(channels, requires_grad=True), None):
        seen = x.flip(-1) if reverse else x
        y0 = torch.nn.functional.conv1d(seen, weight, b, padding=taps - 1, groups=channels)[..., :tokens]
        y0 = torch.nn.functional.silu(y0.flip(-1) if reverse else y0)
        grad = torch.randn(y0.shape)
        expected, *of_weights = torch.autograd.grad(y0, [x, weight] if b is None else [x, weight, b], grad)
        torch.testing.assert_close(cpu.conv_silu(x.detach(), weight, b, reverse), y0.detach(), atol=1e-5, rtol=1e-5)
        found = torch.ones(3, tokens, channels).transpose(1, 2)
        none = cpu.conv_silu_backward(grad, x.detach(), weight, b, reverse, found, add=True)
        assert none == (None, None)
        torch.testing.assert_close(found - 1, expected, atol=2e-5, rtol=1e-5)
        cpu.conv_silu_backward(grad, x.detach(), weight, b, reverse, found, add=False)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
        sums = cpu.conv_silu_backward(grad, x.detach(), weight, b, reverse, of_weight=True, of_bias=b is not None)
        for one, other in zip(sums, of_weights, strict=False):
            torch.testing.assert_close(one, other, atol=5e-5, rtol=1e-5)


@ready
def test_results_do_not_depend_on_the_number_of_threads():
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(everything(inputs(3, 100, 16, 90), backend="cpu"))
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


@ready
def test_calls_from_several_threads_at_once():
    tensors = inputs(2, 40, 16, 90)
    expected, found = everything(tensors, backend="cpu"), {}

    def call(index):
        found[index] = everything(tensors, backend="cpu")

    callers = [threading.Thread(target=call, args=(index,)) for index in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert all(torch.equal(x, y) for index in range(4) for x, y in zip(expected, found[index], strict=True))


FORK = """
import os, torch
from torch.utils.data import DataLoader
from ssp.scan import selective_scan
torch.set_num_threads(2)
def scan(seed=0):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(2, 64, 200, generator=generator, requires_grad=True)
    B = torch.randn(2, 16, 200, generator=generator)
    y = selective_scan(u, u, -torch.ones(64, 16), B, B, backend="cpu")
    (grad,) = torch.autograd.grad(y.sum(), u)
    return grad.detach()
class Scans(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, seed): return scan(seed)
expected = scan()  # the parent has used the kernel and its threads
torch.ones(2000, 2000) @ torch.ones(2000, 2000)
for batch, seed in zip(DataLoader(Scans(), batch_size=1, num_workers=2, multiprocessing_context="fork"), range(4)):
    assert torch.equal(batch[0], scan(seed))
pid = os.fork()
if pid == 0:
    from ssp.scan import cpu
    assert torch.get_num_threads() == 2
    tensors = [torch.ones(2, 64, 200)] * 2 + [-torch.ones(64, 16)] + [torch.ones(2, 16, 200)] * 2
    same = selective_scan(*tensors, backend="cpu")
    os._exit(0 if same.isfinite().all() else 1)
assert os.waitpid(pid, 0)[1] == 0
assert torch.equal(scan(), expected)
print("fine")
"""


@ready
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_workers_may_scan_after_the_parent_has():
    done = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.slow
@ready
def test_no_second_openmp_runtime():
    code = (
        "import torch; from ssp.scan import cpu; torch.ones(300, 300) @ torch.ones(300, 300); cpu._library();"
        "print(len({l.split()[-1] for l in open('/proc/self/maps') if 'omp' in l.split('/')[-1] and '.so' in l}))"
    )
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc here")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "1", done.stdout + done.stderr


SELF_CHECK = r"""
#include "kernel.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
void ssp_setup(void *); int ssp_scan_forward(const scan_job *, int64_t, int64_t);
enum { D = 37, L = 70, N = 5 };
static float u[L * D], delta[L * D], y[L * D], B[L * N], C[L * N], A[D * N];
static float draw(void) { return rand() / (float)RAND_MAX * 2 - 1; }
int main(void) {
    double worst = 0;
    for (int i = 0; i < L * D; i++) u[i] = draw(), delta[i] = 3 * draw();
    for (int i = 0; i < L * N; i++) B[i] = draw(), C[i] = draw();
    for (int i = 0; i < D * N; i++) A[i] = -2 + draw();
    scan_job job = {1, D, L, N, 1, 32, {u, 0, D}, {delta, 0, D}, {0}, {y, 0, D}, {B, 0, N}, {C, 0, N}, A};
    ssp_setup(0);
    if (ssp_scan_forward(&job, 2, 1)) return 1;
    for (int d = 0; d < D; d++) {
        double h[N] = {0};
        for (int t = 0; t < L; t++) {
            double step = log1p(exp(delta[t * D + d])), sum = 0;
            for (int n = 0; n < N; n++) {
                h[n] = exp(step * A[d * N + n]) * h[n] + step * u[t * D + d] * B[t * N + n];
                sum += h[n] * C[t * N + n];
            }
            worst = fmax(worst, fabs(sum - y[t * D + d]));
        }
    }
    printf("%g\n", worst);
    return worst < 1e-5 ? 0 : 2;
}
"""


@pytest.mark.slow
def test_arm64_from_the_same_source(tmp_path):
    compiler, emulator = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
    if not (shutil.which(compiler) and shutil.which(emulator)):
        pytest.skip(f"needs {compiler} and {emulator}")
    (tmp_path / "check.c").write_text(SELF_CHECK)
    program = tmp_path / "check"
    units = [str(tmp_path / "check.c"), *(str(build.SOURCES / name) for name in ("scan.c", "convolution.c", "entry.c"))]
    command = [compiler, *build.FLAGS, "-DVARIANT=base", f"-I{build.SOURCES}", *units, "-static", "-pthread", "-lm"]
    subprocess.run([*command, "-o", str(program)], check=True, timeout=120)
    done = subprocess.run([emulator, str(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


WITH_LITTLE_MEMORY = """
import resource
from pathlib import Path
import torch
from ssp.scan import selective_scan

torch.set_num_threads(1)
u, A, B = torch.rand(1, 1, 1), -torch.ones(1, 1 << 20), torch.rand(1, 1 << 20, 1)
selective_scan(u, u, A[:, :8], B[:, :8], B[:, :8], backend="cpu")  # all is loaded now
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 24), resource.RLIM_INFINITY))  # less than it takes
try:
    selective_scan(u, u, A, B, B, backend="cpu")
except MemoryError as error:
    print(error)
"""


@pytest.mark.slow
@ready
def test_no_memory_is_an_error_not_a_crash():
    # A process of its own: one that has run before may have room enough in what it keeps.
    done = subprocess.run(
        [sys.executable, "-c", WITH_LITTLE_MEMORY], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "no memory for the working space of scan_forward" in done.stdout
