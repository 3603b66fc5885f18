#!/usr/bin/env python3
"""Prints the most bytes that Python MLX takes for the forward pass and the training step of memory.exs."""
import mlx.core as mx

mx.set_default_device(mx.cpu)
SHAPES = [(256, 256)] * 4 + [(256, 1024), (1024, 256)]


def norm(y):
    c = y - y.mean(-1, keepdims=True)
    return c * mx.rsqrt((c * c).mean(-1, keepdims=True) + 1e-5)


def block(x, w):
    h = norm(x)
    q, k, v = (mx.transpose((h @ w[i]).reshape(128, 4, 64), (1, 0, 2)) for i in range(3))
    s = q @ mx.transpose(k, (0, 2, 1)) * 0.125
    e = mx.exp(s - mx.max(s, axis=-1, keepdims=True))
    p = e / mx.sum(e, axis=-1, keepdims=True)
    x = x + mx.transpose(p @ v, (1, 0, 2)).reshape(128, 256) @ w[3]
    h = norm(x) @ w[4]
    return x + (h * mx.sigmoid(h)) @ w[5]


def forward(x, layers):
    for w in layers:
        x = block(x, w)
    return x


def step(x, layers):
    loss, grads = mx.value_and_grad(lambda w: mx.mean(forward(x, w)))(layers)
    return loss, [[w - 0.1 * g for w, g in zip(ws, gs)] for ws, gs in zip(layers, grads)]


x = mx.arange(128 * 256, dtype=mx.float32).reshape(128, 256) / 32768
layers = [[mx.arange(s[0] * s[1], dtype=mx.float32).reshape(s) * 1e-8 for s in SHAPES] for _ in range(12)]
mx.eval(x, layers)
for run in (forward, step):
    compiled = mx.compile(run)
    for _ in range(3):
        mx.eval(compiled(x, layers))
    held = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(compiled(x, layers))
    print(mx.get_peak_memory() - held)
