"""VideoMamba: sizes, shapes, initialisation, drop path, precision, and the extension points of tuning methods."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ssp import build_model, load_weights, parameter_counts
from ssp.backbone.layout import Streams, TokenLayout
from ssp.backbone.mixer import MixerTuning, ScanInputs
from ssp.backbone.videomamba import DropPath, RMSNorm, VideoMamba
from ssp.config import Architecture
from ssp.errors import ConfigError
from ssp.methods.method import TuningMethod

SMALL = {"embed_dim": 24, "depth": 3, "patch_size": 8}


def small(method=None, frames=2, img_size=(16, 24), drop_path=0.0):
    torch.manual_seed(0)
    method = method or TuningMethod()
    model = VideoMamba(method, **SMALL, num_classes=4, num_frames=frames, img_size=img_size, drop_path=drop_path)
    with torch.no_grad():  # fresh weights hardly couple one row with another
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def video(batch=2, frames=2, height=16, width=24):
    return torch.randn(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(1))


# Sizes and names.


@pytest.mark.parametrize(
    ("backbone", "frames", "parameters"),
    [
        ("videomamba_tiny", 8, 6_956_544),
        ("videomamba_small", 8, 25_414_656),
        ("videomamba_middle", 8, 73_645_056),
        ("videomamba_middle", 32, 73_658_880),
    ],
)
def test_published_sizes(backbone, frames, parameters):
    with torch.device("meta"):
        counts = parameter_counts(build_model(backbone, "linear", 51, num_frames=frames))
    assert counts["total"] - counts["head"] == parameters


@pytest.mark.parametrize(("dim", "rank"), [(16, 1), (24, 2), (40, 3), (64, 4)])
def test_dt_rank_rounds_up(dim, rank):
    model = build_model({"embed_dim": dim, "depth": 1}, "linear", 2, img_size=32)
    assert model.layers[0].mixer.dt_proj.weight.shape == (2 * dim, rank)


def test_architecture_can_come_from_a_config():
    model = build_model(Architecture(**SMALL), "linear", 2, img_size=16)
    assert model.patch_embed.proj.weight.shape == (24, 3, 1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "videomamba_huge"}, "unknown backbone 'videomamba_huge'; known: videomamba_tiny"),
        ({"backbone": {"embed_dim": 8}}, "backbone: depth: "),
        ({"backbone": SMALL | {"heads": 2}}, "backbone: heads: "),
        ({"method": "magic"}, "unknown method 'magic'; known: "),
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"img_size": 4}, "img_size 4x4 is smaller than a patch of 8 pixels"),
        ({"drop_path": 1.5}, "drop_path must be between 0 and 1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError) as error:
        build_model(**{"backbone": SMALL, "method": "linear", "num_classes": 2} | arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 3, 3, 16, 24), (2, 3, 2, 24, 16), (2, 1, 2, 16, 24), (3, 2, 16, 24)])
def test_wrong_video(shape):
    with pytest.raises(ValueError, match=r"takes videos of shape \(batch, 3, 2, 16, 24\)"):
        small()(torch.zeros(shape))


# Initialisation.


def test_initialisation_is_the_published_one():
    torch.manual_seed(0)
    model = build_model({"embed_dim": 64, "depth": 4}, "linear", 50, img_size=64)
    mixer = model.layers[2].mixer
    for linear in (mixer.in_proj, mixer.x_proj, mixer.x_proj_b, mixer.dt_proj, mixer.dt_proj_b, model.head):
        assert linear.weight.detach().std() == pytest.approx(0.02, rel=0.15)
    assert not any(bias.any() for bias in (mixer.dt_proj.bias, mixer.dt_proj_b.bias, model.head.bias))
    bound = 1 / math.sqrt(128) / math.sqrt(4)  # uniform(1 / sqrt(fan in)), over sqrt(depth)
    assert 0.95 * bound < mixer.out_proj.weight.abs().max() <= bound
    assert model.pos_embed.detach().std() == pytest.approx(0.02, rel=0.1)
    assert not model.cls_token.any() and not model.temporal_pos_embedding.any()
    torch.testing.assert_close(mixer.A_log.exp(), torch.arange(1.0, 17).repeat(128, 1))


def test_initialisation_depends_on_torch_seed_alone():
    def parameters(seed):
        torch.manual_seed(seed)
        return list(build_model(SMALL, "ssp", 2, img_size=16).parameters())

    assert all(torch.equal(a, b) for a, b in zip(parameters(0), parameters(0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(parameters(0), parameters(1), strict=True))


# Drop path, norm, precision.


def test_drop_path_schedule():
    model = build_model({"embed_dim": 8, "depth": 5}, "linear", 2, img_size=16, drop_path=0.4)
    assert [block.drop_path.rate for block in model.layers] == pytest.approx([0, 0, 0.1, 0.2, 0.3])
    assert model.drop_path.rate == 0.4


def test_drop_path_drops_whole_clips_and_keeps_the_mean():
    branch = torch.ones(4000, 3, 2)
    dropped = DropPath(0.25)(branch)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert not DropPath(1.0)(branch).any()
    assert DropPath(0.25).eval()(branch) is branch


class Doubled(TuningMethod):
    """Doubles each block's sum, and keeps what it was."""

    def __init__(self):
        super().__init__()
        self.totals = []

    def summed(self, run, index, total):
        self.totals.append(total)
        return 2 * total


@pytest.mark.parametrize("factor", [1, 2], ids=["alone", "with a hook on the sum"])
def test_drop_path_acts_on_the_branch_that_enters_the_sum(factor):
    """Not on the sum before, the sum itself, or what is mixed; a hook sees the sum with its dropped branches."""
    method = Doubled() if factor == 2 else TuningMethod()
    model, seen = small(method, drop_path=0.9).train(), []
    for block in model.layers:
        block.register_forward_hook(lambda _, given, made: seen.append((given[0], given[1], made)))
    model.layers[0].drop_path.rate = 0.9  # it has no branch to drop, only the embedding
    model(video(16))
    totals = method.totals if factor == 2 else [made.residual for *_, made in seen]
    for block, (hidden, residual, made), total in zip(model.layers, seen, totals, strict=True):
        assert torch.equal(made.residual, factor * total)
        torch.testing.assert_close(made.hidden, block.mixer(block.norm(factor * total)))
        if residual is None:
            assert torch.equal(total, hidden)
            continue
        branch = (total - residual).flatten(1)
        kept = branch.abs().sum(1) > 0
        assert 0 < kept.sum() < 16 if block.drop_path.rate else kept.all()
        torch.testing.assert_close(branch[kept], hidden.flatten(1)[kept] / (1 - block.drop_path.rate))


def test_drop_path_applies_once_more_before_the_final_norm():
    model, seen = small(drop_path=0.5).train(), []
    model.layers[-1].register_forward_hook(lambda _, given, made: seen.append(made))
    branch = model.forward_features(video(32)) - seen[0].residual[:, 0]
    kept = branch.abs().sum(1) > 1e-6
    assert 4 < kept.sum() < 28
    torch.testing.assert_close(branch[kept], 2 * seen[0].hidden[kept, 0], rtol=1e-4, atol=1e-5)


def test_rms_norm():
    norm, x = RMSNorm(16), torch.randn(3, 16)
    torch.nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (16,), norm.weight, 1e-5))


def test_residual_is_float32_in_half_precision():
    model = small().bfloat16()
    sums = []
    for block in model.layers:
        block.register_forward_hook(lambda _, given, made: sums.append(made))
    logits = model(video().bfloat16())
    assert logits.dtype == torch.bfloat16
    assert {made.residual.dtype for made in sums} == {torch.float32}
    assert {made.hidden.dtype for made in sums} == {torch.bfloat16}


def test_autocast_stays_near_float32():
    model = small().eval()
    with torch.no_grad():
        exact = model(video())
        with torch.autocast("cpu", torch.bfloat16):
            near = model(video())
    assert 0 < (near.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_linear_probe_builds_no_graph_in_the_trunk():
    model = build_model(SMALL, "linear", 2, num_frames=2, img_size=16)
    features = model.forward_features(video(width=16))
    assert not features.requires_grad
    logits = model.forward_head(features)
    assert logits.requires_grad and torch.equal(logits, model(video(width=16)))


# Token layout.

LAYOUT = TokenLayout(frames=2, grid=(2, 3), before_cls=1, after_cls=2, per_frame=3, suffix=4)


def test_layout_rows():
    bare = torch.arange(1.0, 14).reshape(1, 13, 1)  # cls 1, frame one 2..7, frame two 8..13
    rows = LAYOUT.insert(bare).flatten().int().tolist()
    assert rows == [0, 1, 0, 0, 2, 3, 4, 5, 6, 7, 0, 0, 0, 8, 9, 10, 11, 12, 13, 0, 0, 0, 0, 0, 0, 0]
    assert len(rows) == LAYOUT.length and rows[LAYOUT.cls] == 1
    assert torch.equal(replace(LAYOUT, before_cls=0, after_cls=0, per_frame=0, suffix=0).insert(bare), bare)


def test_layout_splits_and_joins_frames():
    stream = torch.randn(2, LAYOUT.length, 5)
    frames = LAYOUT.split_frames(stream)
    assert frames.shape == (2, 2, 9, 5)
    assert torch.equal(frames[:, 1, 0], stream[:, LAYOUT.frames_start + 9])
    assert torch.equal(LAYOUT.join_frames(stream, frames), stream)
    doubled = LAYOUT.join_frames(stream, 2 * frames)
    changed = (doubled != stream).any(-1).any(0).nonzero().flatten().tolist()
    assert changed == list(range(LAYOUT.frames_start, LAYOUT.frames_stop))


# Extension points.


class RecordingTuning(MixerTuning):
    """Notes hooks inside the mixer with its method."""

    def __init__(self, method):
        self.method = method

    def _note(self, hook, direction=None):
        self.method.calls.append((hook, direction))
        return self.method.changed == hook

    def weights(self, weights):
        return weights._replace(in_proj=weights.in_proj + 0.1) if self._note("weights") else weights

    def streams(self, direction, x, z):
        return (x + 0.1, z) if self._note("streams", direction) else (x, z)

    def scan_inputs(self, direction, inputs):
        assert isinstance(inputs, ScanInputs)
        return replace(inputs, C=inputs.C + 0.1) if self._note("scan_inputs", direction) else inputs

    def offset(self, direction, inputs):
        return torch.full_like(inputs.u, 0.1) if self._note("offset", direction) else None


class Recorder(TuningMethod):
    """Notes which hook is called with what; changes nothing."""

    name = "recorder"

    def __init__(self, changed=None):
        """`changed` names the hook of the mixer that shall change something."""
        super().__init__()
        self.calls, self.changed = [], changed

    def attach(self, model):
        self.calls.append(("attach", len(model.layers)))

    def video(self, run, video):
        assert run.layout.length == 13
        self.calls.append(("video", tuple(video.shape)))
        return video

    def layout(self, layout):
        self.calls.append(("layout", layout.length))
        return layout

    def tokens(self, run, tokens):
        self.calls.append(("tokens", tuple(tokens.shape)))
        run.memory["blocks"] = 0
        return tokens

    def before_block(self, run, index, streams):
        assert (streams.residual is None) == (index == 0)
        self.calls.append(("before_block", index))
        return streams

    def mixer_tuning(self, run, index):
        self.calls.append(("mixer_tuning", index))
        return RecordingTuning(self)

    def summed(self, run, index, total):
        self.calls.append(("summed", index))
        return total

    def after_block(self, run, index, streams):
        assert run.memory["blocks"] == index
        run.memory["blocks"] += 1
        self.calls.append(("after_block", index))
        return streams


def test_hooks_are_called_in_order_and_identities_change_nothing():
    recorder = Recorder()
    model = small(recorder)
    with torch.no_grad():
        logits = model(video())
    inside = [(hook, direction) for direction in ("forward", "backward") for hook in ("streams", "scan_inputs")]
    inside += [("offset", "forward"), ("offset", "backward")]
    blocks = []
    for i in range(3):
        blocks += [
            ("before_block", i),
            ("mixer_tuning", i),
            ("summed", i),
            ("weights", None),
            *inside,
            ("after_block", i),
        ]
    start = [("attach", 3), ("layout", 13), ("video", (2, 3, 2, 16, 24)), ("tokens", (2, 13, 24))]
    assert recorder.calls == start + blocks
    with torch.no_grad():
        torch.testing.assert_close(logits, small()(video()))


@pytest.mark.parametrize("hook", ["video", "tokens", "before_block", "summed", "after_block"])
def test_what_a_hook_returns_takes_effect(hook):
    class Changed(TuningMethod):
        pass

    def change(self, *arguments):
        value = getattr(super(Changed, self), hook)(*arguments)
        return value._replace(hidden=value.hidden + 0.1) if isinstance(value, Streams) else value + 0.1

    setattr(Changed, hook, change)
    with torch.no_grad():
        assert (small(Changed())(video()) - small()(video())).abs().max() > 1e-6


@pytest.mark.parametrize("hook", ["weights", "streams", "scan_inputs", "offset"])
def test_what_a_hook_inside_the_mixer_returns_takes_effect(hook):
    with torch.no_grad():
        assert (small(Recorder(hook))(video()) - small()(video())).abs().max() > 1e-6


def test_added_rows_reach_the_logits_only_through_the_scans():
    class Blank(TuningMethod):
        def layout(self, layout):
            return replace(layout, suffix=5)

    with torch.no_grad():
        assert (small(Blank())(video()) - small()(video())).abs().max() > 1e-7


class FromLoaded(TuningMethod):
    """Starts from a frozen weight: what `after_loading` is for."""

    name = "from_loaded"

    def attach(self, model):
        model.copied = torch.nn.Parameter(torch.zeros(2 * SMALL["embed_dim"]))

    def after_loading(self, model):
        with torch.no_grad():
            model.copied.copy_(model.layers[0].mixer.D)


def test_a_method_can_start_from_the_weights_that_were_loaded():
    source, model = small(), small(FromLoaded())
    load_weights(model, source.state_dict())
    assert torch.equal(model.copied, source.layers[0].mixer.D)
    with torch.no_grad():
        model.copied.add_(1)
    learnt = {key: value.clone() for key, value in model.state_dict().items()}
    again = small(FromLoaded())
    load_weights(again, learnt)  # with the method's own weights: they stay as they are
    assert torch.equal(again.copied, learnt["copied"])
