"""ProDiaL against its formula in NumPy, the diagonal of the published code, its sizes, what it folds into."""

import numpy as np
import pytest
import torch

from tests.methods.by_hand import DEPTH, DIM, build, check, lively, videos
from tests.methods.inside import check_merged, counts_of_videomamba_m, forward

INNER = 2 * DIM


@pytest.mark.parametrize(("diagonal", "blocks"), [("plain", 4), ("plain", 64), ("published", 2)])
@pytest.mark.parametrize("rank", [0, 2])
def test_is_its_formula(diagonal, blocks, rank):
    model = lively("prodial", blocks=blocks, rank=rank, diagonal=diagonal, scale=0.5)

    def logits(weights, video):
        def change(layer, shared, *scans):
            def of(key, weight):
                name, matrix = f"prodial.{layer}.{key}.", np.zeros((weight.shape[1],) * 2)
                for i, block in enumerate(weights[f"{name}blocks"]):
                    rows = slice(i * len(block), (i + 1) * len(block))
                    matrix[rows, rows] = block
                own = np.diag(matrix).copy()
                np.fill_diagonal(matrix, 1 - np.maximum(own, 0) if diagonal == "published" else 1 + own)
                changed = np.diag(weights[f"{name}scales"]) @ weight @ matrix
                if not rank:
                    return changed
                return changed + 0.5 * weights[f"{name}low_rank.up"] @ weights[f"{name}low_rank.down"]

            shared.in_proj, shared.out_proj = of("in_proj", shared.in_proj), of("out_proj", shared.out_proj)

        return forward(weights, video, change)

    ends = ["blocks", "scales", *(("low_rank.up", "low_rank.down") if rank else ())]
    check(model, logits, [f"prodial.{i}.{key}.{end}" for i in range(DEPTH) for key in ("in_proj", "out_proj")
                          for end in ends])  # fmt: skip


@pytest.mark.parametrize(("diagonal", "moves"), [("plain", True), ("published", False)])
def test_the_published_diagonal_cannot_move_from_its_start(diagonal, moves):
    model = build("prodial", blocks=4, rank=0, diagonal=diagonal)
    model(videos().float()).square().sum().backward()
    gradient = model.prodial[0]["in_proj"].blocks.grad
    assert bool(gradient.diagonal(dim1=1, dim2=2).any()) is moves
    size = gradient.shape[-1]
    assert gradient[:, ~torch.eye(size, dtype=bool)].count_nonzero()
    single = build("prodial", blocks=INNER, rank=0, diagonal=diagonal)
    dead = {f"prodial.{i}.{key}.blocks" for i in range(DEPTH) for key in ("in_proj", "out_proj")}
    assert set(single.method.without_gradient(single)) == (set() if moves else dead)


def test_as_many_blocks_as_divide_the_inputs():
    model = build("prodial", blocks=24)
    assert model.prodial[0]["in_proj"].blocks.shape == (8, DIM // 8, DIM // 8)
    assert model.prodial[0]["out_proj"].blocks.shape == (8, INNER // 8, INNER // 8)


def test_size():
    blocks = 64 * 9**2 + 64 * 18**2
    assert counts_of_videomamba_m("prodial") == (32 * (blocks + 2304 + 576) + (92_160 + 55_296) * 8,) * 2
    diagonal = counts_of_videomamba_m("prodial", blocks=1152, rank=16)[0]
    assert diagonal == 32 * (576 + 1152 + 2304 + 576) + (92_160 + 55_296) * 16


@pytest.mark.parametrize("diagonal", ["plain", "published"])
def test_merged(diagonal):
    assert not check_merged("prodial", blocks=4, rank=2, diagonal=diagonal).added
