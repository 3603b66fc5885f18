#!/usr/bin/env python3
"""Prints what mlx-lm's model takes a token, with the weights that bench/decoding.exs gives Mlx.

Of mlx-lm only the models are loaded, so that nothing but MLX need be installed with it.
"""
import argparse
import importlib
import importlib.machinery
import json
import math
import pathlib
import statistics
import sys
import time
import types

import mlx.core as mx
import mlx.nn as nn

HERE = pathlib.Path(__file__).resolve().parent


def module(name, folders):
    """A module of mlx-lm without what the package itself imports."""
    package = types.ModuleType("mlx_lm")
    spec = importlib.machinery.PathFinder.find_spec("mlx_lm", folders or None)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["mlx_lm"] = package
    return importlib.import_module(f"mlx_lm.models.{name}")


def hashed(shape, seed):
    x = mx.arange(math.prod(shape), dtype=mx.uint32) + mx.array(seed * 0x9E3779B9 & 0xFFFFFFFF, mx.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> mx.array(shift, mx.uint32))) * mx.array(factor, mx.uint32)
    x = (x ^ (x >> mx.array(16, mx.uint32))) >> mx.array(8, mx.uint32)
    return (x.astype(mx.float32) * 2.0**-24 - 0.5).reshape(shape)


def tensor(shape, seed):
    if len(shape) == 1:
        return hashed(shape, seed) * 0.5 + 1.0
    return hashed(shape, seed) * (2.0 ** -math.floor(math.log2(shape[1]) / 2) * 4)


def load(config, dtype, bits, folders):
    family = module(config["model_type"], folders)
    model = family.Model(family.ModelArgs.from_dict(config))
    names = sorted(nn.utils.tree_flatten(model.parameters()), key=lambda pair: pair[0])
    for at, (name, weight) in enumerate(names):
        made = tensor(weight.shape, 1000 + at).astype(dtype)
        mx.eval(made)
        model.load_weights([(name, made)], strict=False)
    if bits:
        nn.quantize(model, group_size=64, bits=bits)
    mx.eval(model.parameters())
    return model, importlib.import_module("mlx_lm.models.cache").make_prompt_cache


def generate(model, make_cache, prompt, count):
    """Greedy tokens and when they came; each step is queued before the token before is read."""
    cache = make_cache(model)
    prompt = mx.array(prompt)

    def step(tokens):
        return mx.argmax(model(tokens[None], cache=cache)[:, -1, :], axis=-1)

    start = time.perf_counter()
    if prompt.size > 1:
        model(prompt[:-1][None], cache=cache)
        mx.eval([layer.state for layer in cache])
    token = step(prompt[-1:])
    mx.async_eval(token)
    ids, times = [], []
    for at in range(count):
        if at + 1 < count:
            following = step(token)
            mx.async_eval(following)
        ids.append(token.item())
        times.append(time.perf_counter())
        token = following
    gaps = [1000 * (after - before) for before, after in zip(times, times[1:])]
    return {
        "ids": ids,
        "prompt": 1000 * (times[0] - start),
        "mean": 1000 * (times[-1] - times[0]) / (count - 1),
        "median": statistics.median(gaps),
    }


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--model", default="tiny")
    args.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    args.add_argument("--type", choices=["f32", "f16", "bf16"], default="f32")
    args.add_argument("--bits", type=int, default=0)
    args.add_argument("--prompt", type=int, default=512)
    args.add_argument("--tokens", default="64,256")
    args.add_argument("--packages", default="")
    args = args.parse_args()
    mx.set_default_device(mx.gpu if args.device == "gpu" else mx.cpu)
    config = json.loads((HERE / "models.json").read_text())[args.model]
    dtype = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}[args.type]
    model, make_cache = load(config, dtype, args.bits, [args.packages] if args.packages else None)
    prompt = [at * 37 % config["vocab_size"] for at in range(1, args.prompt + 1)]
    figures = []
    for count in map(int, args.tokens.split(",")):
        generate(model, make_cache, prompt, count)
        figures.append(generate(model, make_cache, prompt, count))
    print(json.dumps(figures))


main()
