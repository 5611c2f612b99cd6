"""Hugging Face transformers on PyTorch on this machine's GPU, over the batch sizes of the sweep: eager, default cache.

    python3 transformers_sweep.py RESULTS.json [BATCH_SIZES]

GPT-2 124M with random weights, prompts of 7 tokens, 10 new ones, greedy, the head for the last position only; the medians of
5 runs after one that is not counted; at each batch size the data types take turns.
"""

import json
import platform
import statistics
import subprocess
import sys
from time import perf_counter

import torch
import transformers

PROMPT = [464, 2068, 7586, 21831, 11687, 625, 262]
MAX_TOKENS, REPEATS = 10, 5


def make(dtype):
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config()).to("cuda", dtype).eval()


@torch.inference_mode()
def generate(model, batch_size):
    """Seconds until the first token is here, and in all; every token is brought to the processor, as Omnibus does."""
    torch.cuda.synchronize()
    start = perf_counter()
    cache = transformers.DynamicCache(config=model.config)
    ids = torch.tensor([PROMPT] * batch_size, device="cuda")
    rows = []
    for _ in range(MAX_TOKENS):
        logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        ids = logits[:, -1].argmax(-1, keepdim=True)
        rows.append(ids.tolist())
        if len(rows) == 1:
            first = perf_counter() - start
    return first, perf_counter() - start


def measure(models, batch_size):
    runs = {dtype: [] for dtype in models}
    for repeat in range(REPEATS + 1):
        for dtype, model in models.items():
            run = generate(model, batch_size)
            if repeat > 0:
                runs[dtype].append(run)
    points = {}
    for dtype, pairs in runs.items():
        first, total = (statistics.median(times) for times in zip(*pairs))
        points[dtype] = {
            "batchSize": batch_size,
            "totalSeconds": total,
            "throughput": batch_size * MAX_TOKENS / total,
            "prefillSeconds": first,
            "decodeThroughput": batch_size * (MAX_TOKENS - 1) / (total - first),
            "repeats": [seconds for _, seconds in pairs],
        }
    return points


def nvidia_driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


def main(path, sizes="1,2,4,8,16,32,64,128,256,512"):
    models = {"float32": make(torch.float32), "bfloat16": make(torch.bfloat16)}
    points = {dtype: [] for dtype in models}
    for batch_size in map(int, sizes.split(",")):
        for dtype, point in measure(models, batch_size).items():
            points[dtype].append(point)
            print(f"transformers {dtype:8} batch {batch_size:3}: {point['throughput']:9.1f} tok/s", flush=True)
    result = {
        "model": "gpt2 (random weights)",
        "engine": "transformers, eager, DynamicCache, scaled_dot_product_attention",
        "gpu": torch.cuda.get_device_name(),
        "driver": nvidia_driver(),
        "versions": {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "command": " ".join(["python3", "transformers_sweep.py", *sys.argv[1:]]),
        "promptTokens": len(PROMPT),
        "maxTokens": MAX_TOKENS,
        "points": points,
    }
    with open(path, "w") as file:
        json.dump(result, file, indent=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
