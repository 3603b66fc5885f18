"""Weights that follow from a configuration and a seed, the same that random_weights.exs makes."""
import math

import numpy as np


def shapes(config):
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    heads, groups = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    found = {"model.embed_tokens": (vocab, hidden), "model.norm": (hidden,)}
    if not config["tie_word_embeddings"]:
        found["lm_head"] = (vocab, hidden)
    for at in range(config["num_hidden_layers"]):
        layer = {
            "self_attn.q_proj": (heads, hidden),
            "self_attn.k_proj": (groups, hidden),
            "self_attn.v_proj": (groups, hidden),
            "self_attn.o_proj": (hidden, heads),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        if config["model_type"] == "qwen3":
            layer |= {"self_attn.q_norm": (size,), "self_attn.k_norm": (size,)}
        found |= {f"model.layers.{at}.{name}": shape for name, shape in layer.items()}
    found = {name + ".weight": shape for name, shape in found.items()}
    if config["model_type"] == "qwen2":
        for at in range(config["num_hidden_layers"]):
            for name, count in (("q", heads), ("k", groups), ("v", groups)):
                found[f"model.layers.{at}.self_attn.{name}_proj.bias"] = (count,)
    return sorted(found.items())


def hashed(shape, seed):
    x = np.arange(math.prod(shape), dtype=np.uint32) + np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    x = (x ^ (x >> np.uint32(16))) >> np.uint32(8)
    return (x.astype(np.float32) * np.float32(2.0**-24) - np.float32(0.5)).reshape(shape)


def tensor(shape, seed):
    if len(shape) == 1:
        return hashed(shape, seed) * np.float32(0.5) + np.float32(1.0)
    return hashed(shape, seed) * np.float32(2.0 ** -math.floor(math.log2(shape[1]) / 2) * 4)


def make(config, seed):
    return {name: tensor(shape, seed * 1000 + at) for at, (name, shape) in enumerate(shapes(config))}
