"""The training loop: does it learn, is it reproducible, does a batch stay a batch, does a killed run go on."""

import math
from itertools import chain

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ssp.config import Recipe
from ssp.errors import ConfigError
from ssp.records.record import Chosen
from ssp.training.evaluate import validate
from ssp.training.failure import TrainingFailed
from ssp.training.loop import TrainingState, best_of, epoch_batches, fit, trained_tensors
from tests.unit.toy import CPU, Clips, small_model

CHOSEN = Chosen(lr=0.02, weight_decay=0.01, drop_path=0.0)


def recipe(**changes) -> Recipe:
    return Recipe.model_validate({"epochs": 3, "warmup_epochs": 1, "batch_size": 6, "label_smoothing": 0.0} | changes)


def run(model, train=None, val=None, *, settings=None, seed=0, chosen=CHOSEN, **arguments):
    train = Clips(12) if train is None else train
    val = Clips(9, "val", seed=1) if val is None else val
    return list(
        fit(model, train, val, recipe=settings or recipe(), chosen=chosen, seed=seed, execution=CPU, **arguments)
    )


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_learns_what_can_be_learned():
    model = small_model("full")
    before = validate(model, Clips(30, "val", seed=1), batch_size=8, execution=CPU)
    epochs = run(model, Clips(48), Clips(30, "val", seed=1), settings=recipe(epochs=6))
    assert epochs[-1].val_top1 > 90 > before[1]
    assert epochs[-1].train_loss < epochs[0].train_loss
    after = validate(model, Clips(30, "val", seed=1), batch_size=8, execution=CPU)
    assert (epochs[-1].val_loss, epochs[-1].val_top1) == pytest.approx(after, rel=1e-4)


@pytest.mark.parametrize("method", ["ssp", "vpt", "linear"])
def test_trains_what_the_method_declares_and_nothing_else(method):
    model = small_model(method)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run(model)
    stays = set(model.method.without_gradient(model))
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == (parameter.requires_grad and name not in stays), name


def test_same_seed_same_bytes_other_seed_other_bytes():
    settings = recipe(augmentation={"mixup": 0.8, "cutmix": 1.0}, label_smoothing=0.1)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(results))  # whatever ran before must not matter
        model = small_model("ssp", drop_path=0.3)
        epochs = run(model, settings=settings, seed=seed)
        results.append((trained_tensors(model), [(e.train_loss, e.val_loss) for e in epochs]))
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]
    assert not same(results[0][0], results[2][0])


def test_data_order_is_that_of_seed_and_epoch_whatever_the_method():
    orders = []
    for method in ("ssp", "linear"):
        train = Clips(14)
        run(small_model(method), train, settings=recipe(epochs=2))
        orders.append(train.seen)
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]
    assert orders[0] == [list(chain(*epoch_batches(14, 6, 0, epoch))) for epoch in (0, 1)]
    assert all(len(set(order)) == 12 for order in orders[0])  # full batches only, no video twice
    assert epoch_batches(4, 6, 0, 0) and sorted(epoch_batches(4, 6, 0, 0)[0]) == [0, 1, 2, 3]


MIXED = {"mixup": 0.8, "cutmix": 1.0, "repeats": 2}


@pytest.mark.parametrize("augmentation", [{}, MIXED, MIXED | {"mix_videos": 4}])
def test_micro_batches_add_up_to_the_whole_batch(augmentation):
    """Plain SGD reading of the gradient: AdamW would hide a wrong scale, so compare gradients themselves."""
    gradients = []
    for micro in (None, 4, 2):
        model = small_model("full").double()
        caught = {}
        train = Clips(10, repeats=augmentation.get("repeats", 1))
        train.videos = train.videos.double()
        val = Clips(3, "val")
        val.videos = val.videos.double()
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda p, caught=caught: caught.update({id(p): p.grad.clone()})
            )
        settings = recipe(epochs=1, batch_size=10, micro_batch=micro, augmentation=augmentation, label_smoothing=0.1)
        (epoch,) = run(model, train, val, settings=settings)
        gradients.append(([caught[id(p)] for p in model.parameters() if id(p) in caught], epoch.train_loss))
    largest = max(g.abs().max() for g in gradients[0][0])
    for other, loss in gradients[1:]:
        assert loss == pytest.approx(gradients[0][1], rel=1e-6)
        for a, b in zip(gradients[0][0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=float(1e-6 * largest))


def test_gradient_and_loss_are_those_of_the_formula():
    """One step with repeats and label smoothing against a plain forward pass over all clips."""
    train = Clips(6, repeats=2)
    train.set_epoch(0)
    order = epoch_batches(6, 6, 0, 0)[0]
    clips = torch.cat([train[i][0] for i in order])
    labels = torch.tensor([train.labels[i] for i in order]).repeat_interleave(2)
    expected = cross_entropy(small_model("full")(clips), labels, label_smoothing=0.2).item()
    (epoch,) = run(
        small_model("full"),
        Clips(6, repeats=2),
        settings=recipe(epochs=1, label_smoothing=0.2, augmentation={"repeats": 2}),
    )
    assert epoch.train_loss == pytest.approx(expected, rel=1e-5)


def test_gradients_are_clipped():
    norms = []

    def keep(model):
        norms.append(math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters() if p.grad is not None)))

    for limit in (None, 1e-3):
        model = small_model("linear")
        handle = register_optimizer_step_pre_hook(lambda *_, model=model: keep(model))
        run(model, settings=recipe(epochs=1, batch_size=12, clip_grad=limit))
        handle.remove()
    assert norms[0] > 1e-2 and norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_killed_after_an_epoch_continues_to_the_same_bytes(tmp_path):
    settings = recipe(epochs=4, augmentation={"mixup": 0.8})

    def start(state=None):
        model = small_model("ssp", drop_path=0.2)
        arguments = {"recipe": settings, "chosen": CHOSEN, "seed": 3, "execution": CPU, "state": state}
        return model, fit(model, Clips(12), Clips(9, "val"), **arguments)

    whole, epochs = start()
    expected = list(epochs)
    for stop_after in (1, 2, 4):
        state = TrainingState(tmp_path / f"{stop_after}" / "seed3.pt", "identity")
        _, killed = start(state)
        for _ in range(stop_after):
            next(killed)
        killed.close()
        torch.manual_seed(99)
        model, epochs = start(state)
        torch.manual_seed(98)
        again = list(epochs)
        assert [e.restored for e in again] == [i < stop_after for i in range(4)]
        assert same(trained_tensors(whole), trained_tensors(model))
        assert [(e.epoch, e.lr, e.train_loss, e.val_loss, e.val_top1) for e in again] == [
            (e.epoch, e.lr, e.train_loss, e.val_loss, e.val_top1) for e in expected
        ]


def test_videos_that_share_a_draw_are_another_training():
    losses = [
        run(small_model("full"), settings=recipe(epochs=1, augmentation={"mixup": 0.8, "mix_videos": shared}))
        for shared in (None, 2)
    ]
    assert losses[0][0].train_loss != losses[1][0].train_loss


FALLS = Chosen(lr=0.5, weight_decay=0.0, drop_path=0.0)  # too fast: the last epoch is not the best


def with_best(path=None, keep_best=True):
    """A training whose best epoch is not the last, its model, and the weights after each epoch."""
    model = small_model("ssp", drop_path=0.2)
    state = TrainingState(path, "identity") if path else None
    epochs = fit(
        *(model, Clips(12), Clips(9, "val", seed=1)),
        **{"recipe": recipe(epochs=5), "chosen": FALLS, "seed": 3, "execution": CPU, "state": state},
        keep_best=keep_best,
    )
    return model, epochs


def test_the_best_epoch_is_kept_on_request_alone():
    model, epochs = with_best()
    weights, results = [], []
    for epoch in epochs:
        results.append(epoch)
        weights.append({name: tensor.clone() for name, tensor in trained_tensors(model).items()})
    accuracies = [epoch.val_top1 for epoch in results]
    best = best_of(results)
    assert best.epoch == accuracies.index(max(accuracies)) + 1 < len(results)  # the first of the best
    assert same(trained_tensors(model), weights[best.epoch - 1]) and not same(weights[best.epoch - 1], weights[-1])
    plain, epochs = with_best(keep_best=False)
    assert [epoch.val_top1 for epoch in epochs] == accuracies
    assert same(trained_tensors(plain), weights[-1])


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5])
def test_killed_with_a_best_epoch_continues_to_the_same_bytes(tmp_path, stop_after):
    whole, epochs = with_best()
    best = best_of(list(epochs))
    _, killed = with_best(tmp_path / "seed3.pt")
    for _ in range(stop_after):
        next(killed)
    killed.close()
    model, epochs = with_best(tmp_path / "seed3.pt")
    again = list(epochs)
    assert best_of(again).epoch == best.epoch and sum(epoch.restored for epoch in again) == stop_after
    assert same(trained_tensors(whole), trained_tensors(model))


def test_state_of_something_else_or_damaged_is_not_continued(tmp_path):
    path = tmp_path / "seed0.pt"
    run(small_model("linear"), settings=recipe(epochs=2), state=TrainingState(path, "this"))
    assert run(small_model("linear"), settings=recipe(epochs=2), state=TrainingState(path, "this"))[0].restored
    assert not run(small_model("linear"), settings=recipe(epochs=2), state=TrainingState(path, "that"))[0].restored
    path.write_bytes(path.read_bytes()[:1000])
    assert not run(small_model("linear"), settings=recipe(epochs=2), state=TrainingState(path, "that"))[0].restored
    assert [p.name for p in tmp_path.iterdir()] == ["seed0.pt"]


def test_a_loss_that_is_not_finite_is_a_failure_with_its_place():
    model = small_model("linear")
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingFailed, match="training loss is nan in epoch 1, step 1 of 2"):
        run(model)
    train = Clips(12)
    val = Clips(3, "val")
    val.videos[0] = float("inf")
    with pytest.raises(TrainingFailed, match="validation loss is nan after epoch 1"):
        run(small_model("linear"), train, val)


def test_running_out_of_memory_is_a_failure():
    model = small_model("linear")
    huge = model.forward
    model.forward = lambda clips: huge(clips) + torch.empty(2**60)
    with pytest.raises(TrainingFailed, match="out of memory"):
        run(model)


def test_a_defect_stays_a_defect():
    model = small_model("linear")
    model.forward = lambda clips: clips @ torch.zeros(1, 1)
    with pytest.raises(RuntimeError):
        run(model)


def test_settings_that_cannot_be_trained_are_named():
    with pytest.raises(ConfigError, match="micro_batch: 3 tears mixing pairs apart"):
        run(small_model("linear"), settings=recipe(micro_batch=3, augmentation={"mixup": 1.0}))
    with pytest.raises(ConfigError, match="no training or no validation videos"):
        run(small_model("linear"), val=Clips(0, "val"))


def test_steps_are_reported():
    calls = []
    run(small_model("linear"), on_step=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 6) for i in range(1, 7)]


def test_shorter_training_shrinks_warm_up_in_proportion():
    settings = recipe(epochs=4, warmup_epochs=2, batch_size=3)
    epochs = run(small_model("linear"), settings=settings, epochs=2)
    assert len(epochs) == 2
    assert epochs[0].lr == pytest.approx(CHOSEN.lr)  # warm-up ends with the first of two epochs
    assert epochs[1].lr < 0.5 * CHOSEN.lr
