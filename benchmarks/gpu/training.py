"""Training steps of VideoMamba: time and memory, beside the published arrangement; the first loss; the kernels."""

import os
from collections.abc import Iterator
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.device import Device
from ssp.backbone.mixer import Mixer, MixerTuning
from ssp.errors import SSPError
from ssp.methods.build import build_model
from ssp.scan import build, choose_backend, mamba_ssm, selective_scan
from ssp.scan.dispatch import VARIABLE, load
from ssp.scan.interface import ScanArgs
from ssp.training.execution import Execution
from ssp.training.failure import OutOfMemory, failures
from ssp.training.loop import take_step
from ssp.training.optim import make_optimizer
from ssp.training.passes import MicroBatch

CLASSES = 51


def made_model(device: Device, method: str, drop_path: float = 0.0) -> nn.Module:
    """With random weights, the same each time, on the CPU."""
    torch.manual_seed(0)
    sizes = device.sizes
    return build_model(
        sizes.backbone,
        method,
        CLASSES,
        num_frames=sizes.frames,
        img_size=sizes.image,
        drop_path=drop_path,
        method_options=dict(sizes.options.get(method, {})),
    )


def made_clips(device: Device, clips: int) -> tuple[Tensor, Tensor]:
    """Bytes (B, 1, 3, T, H, W), as they are loaded, and labels; on the CPU."""
    sizes, generator = device.sizes, torch.Generator().manual_seed(0)
    shape = (clips, 1, 3, sizes.frames, sizes.image, sizes.image)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return video, torch.arange(clips) % CLASSES


# ---- the published arrangement --------------------------------------------------------------------------------------


class MambaScan(torch.autograd.Function):
    """A forward scan by mamba-ssm's kernels as that package wraps them: states and ungated output are held."""

    @staticmethod
    def forward(ctx, *tensors):
        """Scan; the eight tensors of `ScanArgs`, none of them None."""
        import selective_scan_cuda

        args = mamba_ssm.prepare(ScanArgs(*tensors))
        out, states, gated = selective_scan_cuda.fwd(*mamba_ssm.kernel_inputs(args), True)
        ctx.save_for_backward(*args[:8], out, states)
        return gated

    @staticmethod
    def backward(ctx, grad):
        """Gradients of all eight."""
        import selective_scan_cuda

        *tensors, out, states = ctx.saved_tensors
        inputs = mamba_ssm.kernel_inputs(ScanArgs(*tensors))
        found = selective_scan_cuda.bwd(*inputs, grad.contiguous(), states, out, None, True, False)
        u, delta, A, B, C, D, bias, z = found[:8]
        return u, delta, A, B[:, 0], C[:, 0], D, z, bias


def published_mixer(mixer: Mixer, hidden: Tensor, tuning: MixerTuning | None = None) -> Tensor:
    """`Mixer.forward` in the published arrangement; the same numbers.

    Two scans forward in time, the second one on a flipped copy of (x, z) and flipped back; PyTorch's layers, with
    autograd to hold what they need. Scans are mamba-ssm's where it is installed, else one Triton launch each.
    """
    if tuning is not None and not tuning.changes_weights_only:
        raise NotImplementedError("a method that acts between the layers of a mixer")
    weights = (tuning or MixerTuning()).weights(mixer.weights())
    scan = MambaScan.apply if mamba_ssm.unavailable() is None else selective_scan
    xz = F.linear(hidden, weights.in_proj, weights.in_proj_bias).transpose(1, 2)
    total = None
    for way in weights.directions:
        x, z = (xz.flip(-1) if way.reverse else xz).chunk(2, dim=1)
        reach, states = way.conv_weight.shape[-1] - 1, way.A.shape[1]
        convolved = F.conv1d(x, way.conv_weight, way.conv_bias, padding=reach, groups=len(way.conv_weight))
        u = F.silu(convolved[..., : x.shape[-1]])
        rows = F.linear(u.transpose(1, 2), way.x_proj, way.x_proj_bias)
        low_rank, B, C = rows.split([way.dt_proj.shape[1], states, states], dim=-1)
        delta = F.linear(low_rank, way.dt_proj).transpose(1, 2)
        y = scan(u, delta, way.A, B.transpose(1, 2), C.transpose(1, 2), way.D, z, way.dt_bias)
        y = y.flip(-1) if way.reverse else y
        total = y if total is None else total + y
    return F.linear(total.transpose(1, 2), weights.out_proj, weights.out_proj_bias)


# ---- stages ---------------------------------------------------------------------------------------------------------


def step(device: Device, method: str, clips: int, scan: str) -> Iterator[dict]:
    """An optimizer step of the training loop in bfloat16, its clips on the GPU: milliseconds and peak memory.

    `scan`: a backend, or "published" for the published arrangement.
    """
    named = scan
    if scan == "published":
        named = "published, scans of " + ("triton" if mamba_ssm.unavailable() else "mamba-ssm")
    else:
        if reason := load(scan).unavailable():
            yield {"method": method, "clips": clips, "scan": scan, "left_out": reason}
            return
        os.environ[VARIABLE] = scan
    execution = Execution(device.torch, bfloat16=True)
    model = made_model(device, method).to(device.torch).train()
    optimizer = make_optimizer(model, 0.05)
    part = MicroBatch(0, *(tensor.to(device.torch) for tensor in made_clips(device, clips)))
    work = partial(take_step, model, optimizer, [part], lr=1e-4, videos=clips, execution=execution)
    device.forget_peak()
    row = {"method": method, "clips": clips, "scan": named}
    with patch.object(Mixer, "forward", published_mixer) if scan == "published" else patch.dict(os.environ):
        try:
            with failures():
                found = device.milliseconds({"step": work}, 1 if scan == "chunked" else device.sizes.rounds)["step"]
        except OutOfMemory as error:
            yield row | {"left_out": str(error)}
            return
    yield row | {"milliseconds": found, "clips_per_second": 1000 * clips / found, "peak_gb": device.peak_gb()}


def loss(device: Device) -> Iterator[dict]:
    """Loss and gradient of the first step, beside those in float32 on the CPU.

    cuDNN may round the inputs of float32 convolutions to TF32, which PyTorch allows by itself: once without.
    """
    build.build()
    cpu, expected, gradient = torch.device("cpu"), None, None
    for name, place, half, tf32 in (
        ("CPU float32", cpu, False, True),
        ("GPU float32", device.torch, False, True),
        ("GPU float32, no TF32", device.torch, False, False),
        ("GPU bfloat16", device.torch, True, True),
    ):
        if place is cpu:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = "triton"
        torch.backends.cudnn.allow_tf32 = tf32
        execution = Execution(place, half)
        model = made_model(device, "ssp").to(place).train()
        clips, labels = made_clips(device, device.sizes.few)
        with execution.autocast():
            logits = model(execution.clips(clips).flatten(0, 1)).float()
        found = F.cross_entropy(logits, labels.to(place))
        found.backward()
        grads = torch.cat([p.grad.flatten().cpu().double() for p in model.parameters() if p.grad is not None])
        if expected is None:
            expected, gradient = found.item(), grads
        yield {
            **{"what": name, "scan": choose_backend(torch.float32, place).name, "loss": found.item()},
            "loss_difference": abs(found.item() - expected),
            "gradient_difference": ((grads - gradient).norm() / gradient.norm()).item(),
        }


def profile(device: Device) -> Iterator[dict]:
    """One forward and backward of SSP: kernels by their share of the time, and launches a block."""
    from torch.profiler import ProfilerActivity

    execution = Execution(device.torch, bfloat16=True)
    model = made_model(device, "ssp").to(device.torch).train()
    clips, labels = (tensor.to(device.torch) for tensor in made_clips(device, device.sizes.clips))

    def work() -> None:
        model.zero_grad(set_to_none=True)
        with execution.autocast():
            logits = model(execution.clips(clips).flatten(0, 1)).float()
        F.cross_entropy(logits, labels).backward()
        device.wait()

    work()
    activities = [ProfilerActivity.CPU] + ([] if device.dry else [ProfilerActivity.CUDA])
    with torch.profiler.profile(activities=activities) as profiler:
        work()
    kernels: dict[str, list[float]] = {}
    for event in profiler.events():
        if event.device_type == device.events and not getattr(event, "is_user_annotation", False):
            kernels.setdefault(event.name, []).append(event.time_range.elapsed_us() / 1000)
    if not kernels:
        raise SSPError("the profiler saw no kernels")
    total = sum(map(sum, kernels.values()))
    launches = sum(map(len, kernels.values()))
    yield {
        **{"milliseconds": total, "launches": launches, "launches_per_block": launches / len(model.layers)},
        "kernels": [
            {"name": name, "launches": len(times), "milliseconds": sum(times), "share": sum(times) / total}
            for name, times in sorted(kernels.items(), key=lambda item: -sum(item[1]))[:15]
        ],
    }
