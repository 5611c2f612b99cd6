"""Hugging Face transformers on PyTorch on this machine's GPU, over the batch sizes of the sweep: eager and compiled.

    python3 transformers_sweep.py RESULTS.json [BATCH_SIZES [COMPILED_BATCH_SIZES]]

GPT-2 124M with random weights, prompts of 7 tokens, 10 new ones, greedy, the head for the last position only; the medians of
5 runs after 20 that are not counted, in which the GPU's clocks rise too; at each batch size the variants take turns.
"compiled" is a static cache and torch.compile(mode="reduce-overhead"), CUDA graphs that is, of decode steps, anew for each
batch size; prefill is eager, as in transformers' own generate(). "TF32" allows it in matrix products, as TensorFlow does
unless told otherwise; PyTorch does not.
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
MAX_TOKENS, WARMUP, REPEATS = 10, 20, 5
SIZES = "1,2,4,8,16,32,64,128,256,512"


class Variant:
    """One way to run the model."""

    def __init__(self, dtype, tf32=False, compiled=False):
        torch.manual_seed(0)
        self.model = transformers.GPT2LMHeadModel(transformers.GPT2Config()).to("cuda", dtype).eval()
        self.tf32, self.compiled = tf32, compiled
        self.steps, self.caches = {}, {}
        self.first_run_seconds = {}
        self.positions = torch.arange(len(PROMPT) + MAX_TOKENS, device="cuda")[None]

    def step(self, ids, positions, cache):
        output = self.model(ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].argmax(-1, keepdim=True)

    def step_for(self, batch_size):
        """The step for a batch size, compiled apart from the others, so that none becomes one of variable size."""
        if not self.compiled:
            return self.step
        if batch_size not in self.steps:
            self.steps[batch_size] = torch.compile(self.step, mode="reduce-overhead", dynamic=False)
        return self.steps[batch_size]

    def empty_cache(self, batch_size):
        if not self.compiled:
            return transformers.DynamicCache(config=self.model.config)
        if batch_size not in self.caches:
            length = len(PROMPT) + MAX_TOKENS
            self.caches[batch_size] = transformers.StaticCache(config=self.model.config, max_cache_len=length)
        self.caches[batch_size].reset()
        return self.caches[batch_size]

    @torch.inference_mode()
    def generate(self, batch_size):
        """Seconds until the first token is here, and in all; every token is brought to the processor, as Omnibus does."""
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        step = self.step_for(batch_size)
        torch.cuda.synchronize()
        start = perf_counter()
        cache = self.empty_cache(batch_size)
        ids = torch.tensor([PROMPT] * batch_size, device="cuda")
        rows, done = [], 0
        while len(rows) < MAX_TOKENS:
            length = ids.shape[1]
            if self.compiled and done:
                torch.compiler.cudagraph_mark_step_begin()
            ids = (step if done else self.step)(ids, self.positions[:, done : done + length], cache)
            if self.compiled:
                ids = ids.clone()  # the graph's own memory is written again by the next step
            done += length
            rows.append(ids.tolist())
            if len(rows) == 1:
                first = perf_counter() - start
        return first, perf_counter() - start

    def forget(self, batch_size):
        """Frees what was made for a batch size."""
        self.steps.pop(batch_size, None)
        self.caches.pop(batch_size, None)


def measure(variants, batch_size):
    runs = {name: [] for name in variants}
    for repeat in range(WARMUP + REPEATS):
        for name, variant in variants.items():
            run = variant.generate(batch_size)
            if repeat == 0:
                variant.first_run_seconds[batch_size] = run[1]
            if repeat >= WARMUP:
                runs[name].append(run)
    points = {}
    for name, pairs in runs.items():
        first, total = (statistics.median(times) for times in zip(*pairs))
        points[name] = {
            "batchSize": batch_size,
            "totalSeconds": total,
            "throughput": batch_size * MAX_TOKENS / total,
            "prefillSeconds": first,
            "decodeThroughput": batch_size * (MAX_TOKENS - 1) / (total - first),
            "firstRunSeconds": variants[name].first_run_seconds[batch_size],
            "repeats": [seconds for _, seconds in pairs],
        }
        variants[name].forget(batch_size)
    return points


def nvidia_driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


def main(path, sizes=SIZES, compiled_sizes=None):
    torch._dynamo.config.recompile_limit = 1000  # a version for each batch size
    torch._dynamo.config.accumulated_recompile_limit = 1000
    variants = {
        "float32": Variant(torch.float32),
        "float32, TF32": Variant(torch.float32, tf32=True),
        "bfloat16": Variant(torch.bfloat16),
        "compiled, float32, TF32": Variant(torch.float32, tf32=True, compiled=True),
        "compiled, bfloat16": Variant(torch.bfloat16, compiled=True),
    }
    compiled_sizes = [int(size) for size in (compiled_sizes or sizes).split(",")]
    points = {name: [] for name in variants}
    for batch_size in map(int, sizes.split(",")):
        wanted = {
            name: variant
            for name, variant in variants.items()
            if not variant.compiled or batch_size in compiled_sizes
        }
        for name, point in measure(wanted, batch_size).items():
            points[name].append(point)
            rate, first = point["throughput"], point["firstRunSeconds"]
            print(f"transformers {name:24} batch {batch_size:3}: {rate:9.1f} tok/s, first run {first:.1f} s", flush=True)
        result = {
            "model": "gpt2 (random weights)",
            "engine": "transformers on PyTorch, scaled_dot_product_attention: eager with DynamicCache; compiled with "
            "StaticCache and decode steps by torch.compile(mode='reduce-overhead') for each batch size",
            "gpu": torch.cuda.get_device_name(),
            "driver": nvidia_driver(),
            "versions": {
                "transformers": transformers.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "command": " ".join(["python3", "transformers_sweep.py", *sys.argv[1:]]),
            "promptTokens": len(PROMPT),
            "maxTokens": MAX_TOKENS,
            "warmup": WARMUP,
            "points": points,
        }
        with open(path, "w") as file:  # after each size: what was measured stays if the next one fails
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
