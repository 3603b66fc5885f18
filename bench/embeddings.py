#!/usr/bin/env python3
"""Prints what sentence-transformers on torch and ONNX Runtime take for batches of tokens, in microseconds.

    embeddings.py FOLDER LENGTH BATCH...

Each sentence has so many tokens, the same as in embeddings.exs. One thread each, on the CPU.
"""
import json
import os
import sys
import tempfile
import time

import onnxruntime
import torch
from sentence_transformers import SentenceTransformer, models

folder, length, batches = sys.argv[1], int(sys.argv[2]), [int(arg) for arg in sys.argv[3:]]
torch.set_num_threads(1)

transformer = models.Transformer(folder)
pooling = models.Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
model = SentenceTransformer(modules=[transformer, pooling, models.Normalize()], device="cpu").eval()


class Embedding(torch.nn.Module):
    """The same as a function of arrays, for ONNX."""

    def __init__(self):
        super().__init__()
        self.bert = transformer.auto_model

    def forward(self, input_ids, attention_mask):
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled)


def features(batch):
    ids = [[1000 + (7 * row + 13 * at) % 20000 for at in range(length)] for row in range(batch)]
    return torch.tensor(ids), torch.ones(batch, length, dtype=torch.long)


def session(batch):
    path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    torch.onnx.export(
        Embedding().eval(), features(batch), path, input_names=["ids", "mask"], verbose=False, external_data=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def best(run):
    run(), run()
    times, end = [], time.perf_counter() + 4
    while time.perf_counter() < end or len(times) < 5:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    times.sort()
    return times[len(times) // 10] * 1e6


figures = {"torch": {}, "onnx": {}}
for batch in batches:
    ids, mask = features(batch)
    onnx = session(batch)
    arrays = {"ids": ids.numpy(), "mask": mask.numpy()}
    with torch.inference_mode():
        embedding = model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
        figures["torch"][batch] = best(lambda: model({"input_ids": ids, "attention_mask": mask}))
    assert abs(onnx.run(None, arrays)[0] - embedding.numpy()).max() < 1e-4
    figures["onnx"][batch] = best(lambda: onnx.run(None, arrays))
    figures["first"] = embedding[0].tolist()
print(json.dumps(figures))
