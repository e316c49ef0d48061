"""VideoMamba and State Space Prompting once more, as plain NumPy over one clip: formulas, no modules, no batch.

An oracle for sizes that the golden files do not have. Weights are float64 arrays under published names.
"""

import numpy as np

STATES, KERNEL, HEADS = 16, 4, 8


def logits(weights, video, depth, patch, prompts=0):
    """Video (3, T, H, W) to logits (classes,); `prompts` rows a frame, 0 without State Space Prompting."""
    hidden, frames = embedding(weights, video, patch, prompts), video.shape[1]
    patches, residual = (len(hidden) - 1) // frames - prompts, 0.0
    for layer in range(depth):
        if prompts:
            hidden = prompted(weights, hidden, frames, patches, prompts, layer)
        residual = residual + hidden
        hidden = mixer(weights, f"layers.{layer}.mixer.", norm(residual, weights[f"layers.{layer}.norm.weight"]))
    return linear(weights, "head", norm((residual + hidden)[0], weights["norm_f.weight"]))


def embedding(weights, video, patch, prompts):
    """Rows [class token, frame 1 and its blank prompts, frame 2 ...]."""
    _, frames, height, width = video.shape
    kernel = weights["patch_embed.proj.weight"]
    rows = [weights["cls_token"][0, 0] + weights["pos_embed"][0, 0]]
    for t in range(frames):
        place = 1
        for top in range(0, height - patch + 1, patch):
            for left in range(0, width - patch + 1, patch):
                pixels = video[:, t, top : top + patch, left : left + patch]
                row = (kernel[:, :, 0] * pixels).sum((1, 2, 3)) + weights["patch_embed.proj.bias"]
                rows.append(row + weights["pos_embed"][0, place] + weights["temporal_pos_embedding"][0, t])
                place += 1
        rows += [np.zeros_like(rows[0])] * prompts
    return np.stack(rows)


def prompted(weights, hidden, frames, patches, prompts, layer):
    """Gathering and spreading before a block."""
    hidden = hidden.copy()
    starts = [1 + t * (patches + prompts) for t in range(frames)]
    shared, gathered = [], []
    gather = weights["inner_prompt.inter.convs.weight"]
    for start in starts:
        middle = linear(weights, "inner_prompt.fc1", hidden[start : start + patches])
        middle = middle * weights["inner_prompt.conv.weight"].ravel() + weights["inner_prompt.conv.bias"]
        shared.append(linear(weights, "inner_prompt.fc2", middle))
        frame = (middle * gather.reshape(len(gather), -1).T).sum(0) + weights["inner_prompt.inter.convs.bias"]
        gathered.append(linear(weights, "inner_prompt.inter.heads", frame))
    if layer > 0:
        entropy = np.array([[-(s * np.log(s + 1e-10)).sum() for s in softmax(frame)] for frame in shared])
        gate = softmax((1 - entropy / entropy.max()).mean(1))
        scale = weights[f"dynamic_scales.{layer - 1}"]
        summary = np.stack([hidden[start + patches - 1] for start in starts]) * (1 + scale * gate[:, None])
        for i in range(prompts):
            rows = attention(weights, f"prompt_attentions.{i}.", summary) * np.stack(gathered)
            for start, row in zip(starts, rows, strict=True):
                hidden[start + patches + i] = row
    for start, prompt in zip(starts, shared, strict=True):
        hidden[start : start + patches] += prompt
    return hidden


def attention(weights, name, summary):
    """Low-rank attention over frames; summary (T, D)."""
    x = linear(weights, name + "down_proj", summary)
    inputs = x @ weights[name + "attention.in_proj_weight"].T + weights[name + "attention.in_proj_bias"]
    query, key, value = np.split(inputs, 3, axis=1)
    size = x.shape[1] // HEADS
    out = np.empty_like(x)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        out[:, part] = softmax(query[:, part] @ key[:, part].T / np.sqrt(size)) @ value[:, part]
    out = linear(weights, name + "up_proj", linear(weights, name + "attention.out_proj", out))
    return out * weights[name + "scale"]


def mixer(weights, name, rows):
    """Both directions of one block; rows (L, D)."""
    x, z = np.split(rows @ weights[name + "in_proj.weight"].T, 2, axis=1)
    both = scan(weights, name, "", "A_log", x, z) + scan(weights, name, "_b", "A_b_log", x[::-1], z[::-1])[::-1]
    return both @ weights[name + "out_proj.weight"].T


def scan(weights, name, end, log_name, x, z):
    """Causal convolution and selective scan, one row after the other; x, z (L, E)."""
    kernel, A = weights[f"{name}conv1d{end}.weight"][:, 0], -np.exp(weights[name + log_name])
    rank = weights[f"{name}dt_proj{end}.weight"].shape[1]
    padded = np.concatenate([np.zeros((KERNEL - 1, x.shape[1])), x])
    state, out = np.zeros_like(A), np.empty_like(x)
    for t in range(len(x)):
        u = silu((padded[t : t + KERNEL].T * kernel).sum(1) + weights[f"{name}conv1d{end}.bias"])
        low, B, C = np.split(weights[f"{name}x_proj{end}.weight"] @ u, [rank, rank + STATES])
        step = np.log1p(np.exp(linear(weights, f"{name}dt_proj{end}", low)))
        state = np.exp(step[:, None] * A) * state + (step * u)[:, None] * B
        out[t] = (state @ C + weights[f"{name}D{end}"] * u) * silu(z[t])
    return out


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    shares = np.exp(x - x.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)
