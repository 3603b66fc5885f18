#!/usr/bin/env python3
"""Times Python MLX on the cases that Mlx is compared on.

The same MLX library runs underneath, so a ratio to these figures is the cost of the binding.
Usage: python_mlx.py [--device cpu|gpu] [--only NAME ...] [--serve]     (pip: mlx==0.32.2 and mlx-cpu or mlx-cuda-13, numpy)
Prints one JSON object: case -> median microseconds (GFLOP/s where the name says so).
"""
import argparse
import json
import sys
import time

import mlx.core as mx
import mlx.nn as nn
import numpy as np


def median_us(run, budget_s=1.0, warm=5):
    for _ in range(warm):
        run()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < budget_s and len(times) < 20000:
        t = time.perf_counter()
        run()
        times.append(time.perf_counter() - t)
    times.sort()
    return times[len(times) // 2] * 1e6


def read(x):
    """Bring the values to the host, as Nx.to_binary does."""
    mx.eval(x)
    return bytes(memoryview(x)) if x.nbytes <= 65536 else np.array(x, copy=False)


def block(x, w):
    """Pre-norm transformer block composed from basic ops: batch 1, seq 128, hidden 256, 4 heads."""

    def norm(y):
        m = y.mean(-1, keepdims=True)
        return (y - m) * mx.rsqrt(((y - m) ** 2).mean(-1, keepdims=True) + 1e-5)

    h = norm(x)
    q, k, v = (mx.transpose((h @ w[i]).reshape(128, 4, 64), (1, 0, 2)) for i in range(3))
    p = mx.softmax(q @ mx.transpose(k, (0, 2, 1)) * 0.125, axis=-1)
    x = x + mx.transpose(p @ v, (1, 0, 2)).reshape(128, 256) @ w[3]
    h = norm(x) @ w[4]
    h = 0.5 * h * (1 + mx.tanh(0.7978845608 * (h + 0.044715 * h**3)))
    return x + h @ w[5]


def fast_cases():
    x, weight = mx.random.normal((512, 2048)), mx.random.normal((2048,))
    heads, square = mx.random.normal((1, 8, 512, 64)), mx.random.normal((4096, 4096))
    key, token = mx.random.normal((1, 8, 1024, 64)), mx.random.normal((1, 8, 1, 64))
    gate, half = mx.random.normal((512, 4096)), heads.astype(mx.bfloat16)
    mx.eval(x, weight, heads, square, key, token, gate, half)

    def rope(y):
        return mx.fast.rope(y, 64, traditional=False, base=10000.0, scale=1.0, offset=3)

    def attend(q, k, **options):
        return mx.fast.scaled_dot_product_attention(q, k, k, scale=0.125, **options)

    cases = {
        "fast_rms_norm_512x2048": lambda: mx.fast.rms_norm(x, weight, 1e-5),
        "fast_layer_norm_512x2048": lambda: mx.fast.layer_norm(x, weight, weight, 1e-5),
        "fast_rope_8x512x64": lambda: rope(heads),
        "fast_rope_token": lambda: rope(token),
        "fast_attention_8x512x64": lambda: attend(heads, heads, mask="causal"),
        "fast_attention_bf16": lambda: attend(half, half, mask="causal"),
        "fast_attention_token": lambda: attend(token, key),
        "fast_swiglu_512x4096": lambda: nn.silu(gate) * gate,
        "fast_gelu_512x4096": lambda: nn.gelu(gate),
        "fast_softmax_4096x4096": lambda: mx.softmax(square, axis=-1, precise=True),
        "fast_einsum_8x512x64": lambda: mx.einsum("bhqd,bhkd->bhqk", heads, heads),
    }
    return {name: (lambda run=run: mx.eval(run())) for name, run in cases.items()}


def serve(cases):
    """Runs what is asked for, a case and how often, and prints the nanoseconds it took."""
    for line in sys.stdin:
        name, times = line.split()
        start = time.perf_counter_ns()
        for _ in range(int(times)):
            cases[name]()
        print(time.perf_counter_ns() - start, flush=True)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--device", default="cpu")
    args.add_argument("--only", nargs="*")
    args.add_argument("--serve", action="store_true")
    args = args.parse_args()
    mx.set_default_device(mx.Device(mx.gpu if args.device == "gpu" else mx.cpu))
    mx.random.seed(0)
    a, b = mx.random.normal((256,)), mx.random.normal((256,))
    big = np.random.default_rng(0).standard_normal(16 * 1024 * 1024, dtype=np.float32)
    bigx = mx.array(big)
    mlp = [mx.random.normal(s) for s in [(32, 784), (784, 128), (128, 10)]]
    w = [mx.random.normal(s) * 0.02 for s in [(256, 256)] * 4 + [(256, 1024), (1024, 256)]]
    x = mx.random.normal((128, 256))
    m = mx.random.normal((1024, 1024))
    million = mx.sin(mx.arange(2.0**20))
    places = (mx.arange(2**20, dtype=mx.int64) * 7919 % 2**20).astype(mx.int32)
    image, pooled = mx.random.normal((8, 56, 56, 64)), mx.random.normal((8, 112, 112, 64))
    kernels = mx.random.normal((64, 3, 3, 64))
    square = bigx.reshape(4096, 4096)
    rows = million.reshape(1024, 1024)
    order = places.reshape(1024, 1024) % 1024
    positive = square > 0
    definite = m[:512] @ m[:512].T / 1024 + mx.eye(512)
    mx.eval(a, b, bigx, mlp, w, x, m, million, places, image, pooled, kernels, definite, square, rows, order, positive)
    pool = nn.MaxPool2d(3, 2)

    def chain(x, y):
        for _ in range(100):
            x = x + y
        return x

    chain_c = mx.compile(chain)
    mlp_c = mx.compile(lambda x, u, v: mx.softmax(mx.maximum(x @ u, 0) @ v, axis=-1))
    body_c = mx.compile(lambda x: x * 1.0001 + 1)
    block_c = mx.compile(block)

    def loop():
        y = a
        for _ in range(1000):
            y = body_c(y)
        return y

    def loss(p, x, y):
        z = mx.maximum(x @ p[0] + p[1], 0) @ p[2] + p[3]
        return mx.mean(mx.logsumexp(z, axis=-1) - mx.sum(z * y, axis=-1))

    def step(p, m1, m2, t, x, y):
        value, grads = mx.value_and_grad(loss)(p, x, y)
        m1 = [0.9 * m + 0.1 * g for m, g in zip(m1, grads)]
        m2 = [0.999 * v + 0.001 * g * g for v, g in zip(m2, grads)]
        c1, c2 = 1 - mx.power(0.9, t), 1 - mx.power(0.999, t)
        p = [p - 0.001 * (m / c1) / (mx.sqrt(v / c2) + 1e-8) for p, m, v in zip(p, m1, m2)]
        return value, p, m1, m2, t + 1

    step_c = mx.compile(step)
    shapes = [(64, 128), (128,), (128, 10), (10,)]
    zeros = [mx.zeros(s) for s in shapes]
    state = ([mx.random.normal(s) * 0.1 for s in shapes], zeros, zeros, mx.array(1.0))
    digits = (mx.random.normal((128, 64)), mx.eye(10)[mx.arange(128) % 10])
    mx.eval(state, digits)

    def train(steps):
        now = state
        for _ in range(steps):
            value, *now = step_c(*now, *digits)
            mx.async_eval(value, now)
        mx.eval(value, now)

    def matmul():
        mx.eval(m @ m)

    def softmax():
        e = mx.exp(square - mx.max(square, axis=-1, keepdims=True))
        mx.eval(e / mx.sum(e, axis=-1, keepdims=True))

    def top_k():
        chosen = mx.argpartition(rows, -10, axis=-1)[..., -10:]
        falling = mx.argsort(-mx.take_along_axis(rows, chosen, axis=-1), axis=-1)
        chosen = mx.take_along_axis(chosen, falling, axis=-1)
        mx.eval(mx.take_along_axis(rows, chosen, axis=-1), chosen)

    cases = {
        "add_256_and_read": lambda: read(a + b),
        "chain_100_eager_and_read": lambda: read(chain(a, b)),
        "chain_100_compiled_and_read": lambda: read(chain_c(a, b)),
        "mlp_compiled_and_read": lambda: read(mlp_c(*mlp)),
        "while_1000_and_read": lambda: read(loop()),
        "block_compiled_and_read": lambda: read(block_c(x, w)),
        "block_eager_and_read": lambda: read(block(x, w)),
        "chain_100_jit_and_read": lambda: read(chain_c(a, b)),
        "chain_100_unfused_and_read": lambda: read(chain(a, b)),
        "mlp_fused_and_read": lambda: read(mlp_c(*mlp)),
        "while_1000_fused_and_read": lambda: read(loop()),
        "block_fused_and_read": lambda: read(block_c(x, w)),
        "training_step": lambda: mx.eval(step_c(*state, *digits)),
        "training_step_fused": lambda: mx.eval(step_c(*state, *digits)),
        "training_100_steps": lambda: train(100),
        "training_100_steps_fused": lambda: train(100),
        "read_64mb": lambda: read(bigx),
        "write_64mb": lambda: mx.eval(mx.array(big)),
        "matmul_1024_f32": matmul,
        "cholesky_512_f32": lambda: mx.eval(mx.linalg.cholesky(definite, stream=mx.cpu)),
        "sort_1m_f32": lambda: mx.eval(mx.sort(million)),
        "gather_1m_f32": lambda: mx.eval(mx.take(million, places)),
        "take_along_axis_1m_f32": lambda: mx.eval(mx.take_along_axis(rows, order, axis=1)),
        "top_10_of_1024x1024_f32": top_k,
        "fft_1m_f32": lambda: mx.eval(mx.fft.fft(million)),
        "add_16m": lambda: mx.eval(bigx + bigx),
        "exp_16m": lambda: mx.eval(mx.exp(bigx)),
        "select_16m": lambda: mx.eval(mx.where(positive, square, square)),
        "clip_16m": lambda: mx.eval(mx.clip(bigx, -1.0, 1.0)),
        "softmax_4096x4096": softmax,
        "sum_16m": lambda: mx.eval(mx.sum(bigx)),
        "sum_rows_4096x4096": lambda: mx.eval(mx.sum(square, axis=1)),
        "sum_columns_4096x4096": lambda: mx.eval(mx.sum(square, axis=0)),
        "argmax_16m": lambda: mx.eval(mx.argmax(bigx)),
        "cumulative_sum_16m": lambda: mx.eval(mx.cumsum(bigx)),
        "conv_8x56x56x64": lambda: mx.eval(mx.conv2d(image, kernels, padding=1)),
        "window_max_8x112x112x64": lambda: mx.eval(pool(pooled)),
    }
    cases.update(fast_cases())
    if args.serve:
        return serve(cases)
    out = {}
    for name, run in cases.items():
        if not args.only or name in args.only:
            out[name] = round(median_us(run), 3)
    if "matmul_1024_f32" in out:
        out["matmul_1024_f32_gflops"] = round(2 * 1024**3 / out["matmul_1024_f32"] / 1e3, 1)
    print(json.dumps({"mlx": mx.__version__, "device": args.device, "us": out}, indent=1))


if __name__ == "__main__":
    main()
