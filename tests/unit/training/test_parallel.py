"""Several processes for one training: the same result as of one, the same bytes in each, and one end for all."""

import math
import os
import signal

import numpy as np
import pytest
import torch

from ssp.config import Recipe
from ssp.errors import ConfigError
from ssp.methods.registry import load_method, method_names
from ssp.records.record import Chosen
from ssp.training.evaluate import forward_all, predict
from ssp.training.failure import TrainingFailed
from ssp.training.features import Features
from ssp.training.loop import TrainingState, fit, trained_tensors
from ssp.training.parallel import Elsewhere, current
from ssp.training.stopping import Interrupted, stoppable
from tests.unit.several import in_processes
from tests.unit.toy import CPU, Clips, small_model

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
CHOSEN = Chosen(lr=0.02, weight_decay=0.01, drop_path=0.0)
VARIANTS = {
    f"{name} {options}": (name, options) for name in method_names() for options in load_method(name).test_configs
}
MIXED = {"mixup": 0.8, "cutmix": 1.0, "repeats": 2, "mix_videos": 2}
# Three micro-batches a step, the last one smaller: two processes have unequal shares.
PLAIN = {"epochs": 1, "batch_size": 5, "micro_batch": 2, "clip_grad": 0.5, "augmentation": MIXED}


def training(method="ssp", options=None, *, dtype=torch.float64, path=None, weights=0, plain=PLAIN, **more):
    """A model and its epochs, with drop path, mixing, clipping and micro-batches."""
    model = small_model(method, drop_path=0.3, seed=weights, **(options or {})).to(dtype)
    train, val = Clips(10, repeats=2), Clips(9, "val", seed=1)
    for clips in (train, val):
        clips.videos = clips.videos.to(dtype)
    state = path and TrainingState(path, "identity")
    arguments = {"recipe": Recipe.model_validate(plain), "chosen": CHOSEN, "seed": 3, "execution": CPU, "state": state}
    if model.trunk_is_frozen:
        more["features"] = Features(model)
    return model, fit(model, train, val, **arguments | more)


def told(epochs):
    return [(e.epoch, e.lr, e.train_loss, e.val_loss, e.val_top1) for e in epochs]


def outcome(*arguments, **more):
    """Curves, and the bytes of all that has trained."""
    model, epochs = training(*arguments, **more)
    curves = told(epochs)
    return curves, {name: tensor.numpy().copy() for name, tensor in trained_tensors(model).items()}


def stopped(path, step):
    """Asked to stop, which only the first process is, after a step of the first epoch."""
    act = lambda done, _: os.kill(os.getpid(), signal.SIGTERM) if done == step and current().rank == 0 else None  # noqa: E731
    with stoppable(), pytest.raises(Interrupted):
        list(training(path=path, on_step=act)[1])


def failing(kind):
    """What a training is said to have failed for, when only the last process meets it."""
    model, epochs = training("full")
    forward, here = model.forward, current().rank == current().size - 1

    def fails(clips):
        if kind == "memory":
            raise torch.OutOfMemoryError("no room\nfor 2 GB")
        if kind == "defect":
            raise KeyError("a defect")
        return forward(clips) * math.nan

    if here:
        model.forward = fails
    try:
        list(epochs)
    except (TrainingFailed, Elsewhere, RuntimeError, KeyError) as error:
        return type(error).__name__, str(error)


def added_up():
    """The gradients of weights that one process has used, that all have, and that none has."""
    model, group = torch.nn.ParameterList([torch.ones(2), torch.ones(3), torch.ones(4)]), current()

    def work():
        used = model[1].sum() * (group.rank + 1) + (model[0].sum() if group.rank == group.size - 1 else 0)
        used.backward()
        return [used.item()]

    losses = group.gradients(model, work)
    return losses, [weight.grad if weight.grad is None else weight.grad.tolist() for weight in model]


def predicted():
    """Predictions of two views of each video, whose last batch one process has nothing of."""
    clips = Clips(9, "test")
    found = predict(small_model(), clips, clips.rows, batch_size=4, execution=CPU).to_dict("list")
    return found | {"rows": [rows.tolist() for _, _, rows, _ in forward_all(small_model(), clips, 4, None, CPU)]}


def everything(folder):
    """All that is compared, in one go: to start processes takes seconds."""
    found = {name: outcome(*variant) for name, variant in VARIANTS.items()}
    found["float32"] = outcome(dtype=torch.float32)
    found["added up"] = added_up()
    found["test"] = predicted()
    found["others' weights"] = outcome(weights=current().rank)
    found["one's state"] = outcome(path=folder / f"one{current().rank}.pt")  # only the first has it
    stopped(folder / f"two{current().rank}.pt", 1)
    found["failures"] = {kind: failing(kind) for kind in ("memory", "nan", "defect")}
    try:
        list(training(plain=PLAIN | {"micro_batch": 6})[1])
    except ConfigError as error:
        found["too few"] = str(error)
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory, one_thread):
    """What two processes have found, and the folder with the state that they have left."""
    folder = tmp_path_factory.mktemp("states")
    stopped(folder / "one0.pt", 1)
    return in_processes(2, everything, folder), folder


def close(found, expected, atol):
    curves, weights = found
    assert np.allclose(np.array(curves, float), np.array(expected[0], float), rtol=1e-6, atol=0)
    assert weights.keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        assert np.abs(weights[name] - tensor).max(initial=0) <= atol, name


def equal(a, b):
    assert a[0] == b[0] and a[1].keys() == b[1].keys()
    assert all(np.array_equal(a[1][name], b[1][name]) for name in a[1])


@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_train_as_one_and_end_with_the_same_bytes(two, name):
    (first, second), _ = two
    equal(first[name], second[name])
    close(first[name], outcome(*VARIANTS[name]), atol=1e-10)


def test_in_float32_the_curves_agree(two):
    (first, second), _ = two
    equal(first["float32"], second["float32"])
    close(first["float32"], outcome(dtype=torch.float32), atol=1e-5)


def test_predictions_are_those_of_one_process_in_each(two):
    expected = predicted()
    for found in two[0]:
        assert found["test"].keys() == expected.keys()
        for name, column in expected.items():
            assert all(map(np.array_equal, found["test"][name], column)), name


def test_another_number_of_processes_goes_on_with_the_same_training(two):
    (first, second), folder = two
    expected = outcome()
    equal(first["one's state"], second["one's state"])
    close(first["one's state"], expected, atol=1e-10)  # begun by one, ended by two
    steps = []
    model, epochs = training(path=folder / "two0.pt", on_step=lambda done, _: steps.append(done))
    found = told(epochs), {name: tensor.numpy() for name, tensor in trained_tensors(model).items()}
    close(found, expected, atol=1e-10)  # begun by two, ended by one
    assert steps == [2]
    assert not (folder / "two1.pt").exists()


def test_gradients_are_added_up_and_what_none_has_used_has_none(two):
    for found in two[0]:
        assert found["added up"] == ([3.0, 8.0], [[1.0, 1.0], [3.0, 3.0, 3.0], None])


def test_all_start_from_the_weights_of_the_first(two):
    (first, second), _ = two
    equal(first["others' weights"], second["others' weights"])
    close(first["others' weights"], outcome(), atol=1e-10)


def test_what_one_process_fails_for_ends_all_with_the_reason(two):
    first, second = (found["failures"] for found in two[0])
    assert first["memory"] == ("OutOfMemory", "out of memory in another process (one video a pass)")
    assert second["memory"] == ("OutOfMemory", "out of memory: no room (one video a pass)")
    assert first["nan"] == second["nan"] == ("TrainingFailed", "training loss is nan in epoch 1, step 1 of 2")
    assert first["defect"] == ("RuntimeError", "KeyError('a defect') (process 2 of 2)")
    assert second["defect"] == ("KeyError", "'a defect'")


def test_fewer_micro_batches_than_processes_is_refused(two):
    for found in two[0]:
        assert found["too few"].startswith("recipe.micro_batch: the 5 videos of a step make 1 micro-batches of 6 for 2")
        assert "give at most 2" in found["too few"]
