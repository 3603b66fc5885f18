#!/usr/bin/env python3
"""Greedy tokens of mlx-lm for the cases of a JSON file, with weights of random_weights.py.

    pip install mlx==0.32.2 mlx-cpu==0.32.2 mlx-lm
    python3 reference.py CASES.json [--folders FOLDER] [--write]

Prints a list of lists of tokens. With --folders each model is saved to FOLDER/NAME, dense or quantized, as mlx-lm saves
them; with --write the tokens are written to the file of the cases.
"""
import argparse
import json
import pathlib
import tempfile

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model, save_config, save_model

import random_weights

mx.set_default_device(mx.cpu)


def save(case, folder):
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(case["config"])
    weights = random_weights.make(config, case["seed"])
    mx.save_safetensors(str(folder / "model.safetensors"), {name: mx.array(w) for name, w in weights.items()})
    (folder / "config.json").write_text(json.dumps(config))
    if bits := case.get("bits"):
        model, _ = load_model(folder)
        nn.quantize(model, group_size=64, bits=bits)
        save_model(folder, model)
        config["quantization"] = {"group_size": 64, "bits": bits}
        save_config(config, folder / "config.json")


def tokens(case, folder):
    save(case, folder)
    model, _ = load_model(folder)
    steps = generate_step(mx.array(case["prompt"]), model, max_tokens=case["length"], stream=mx.default_stream(mx.cpu))
    return [int(token) for token, _ in steps]


def main():
    args = argparse.ArgumentParser()
    args.add_argument("cases", type=pathlib.Path)
    args.add_argument("--folders", type=pathlib.Path)
    args.add_argument("--write", action="store_true")
    args = args.parse_args()
    cases = json.loads(args.cases.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folders = args.folders or pathlib.Path(temporary)
        for case in cases:
            case["tokens"] = tokens(case, folders / case["name"])
    if args.write:
        args.cases.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    else:
        print(json.dumps([case["tokens"] for case in cases]))


if __name__ == "__main__":
    main()
