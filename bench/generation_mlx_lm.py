#!/usr/bin/env python3
"""Prints what mlx-lm takes for the model of a folder: tokens per second when decoding and of the prompt, and the most memory."""
import json
import pathlib
import statistics
import sys
import time

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model

mx.set_default_device(mx.cpu)
model, _ = load_model(pathlib.Path(sys.argv[1]))


def run(prompt, count):
    times = [time.perf_counter()]
    for _ in generate_step(mx.array(prompt), model, max_tokens=count, stream=mx.default_stream(mx.cpu)):
        times.append(time.perf_counter())
        if len(times) == 2:
            mx.reset_peak_memory()
    return times


short, long = list(range(1, 17)), [at * 37 % 8192 for at in range(1, 513)]
run(short, 8)
times = run(short, 128)
peak = mx.get_peak_memory()
prompts = [times[1] - times[0] for times in (run(long, 2) for _ in range(3))]
figures = {"decode": (len(times) - 2) / (times[-1] - times[1]), "prompt": len(long) / statistics.median(prompts), "peak": peak}
print(json.dumps(figures))
