"""Hugging Face transformers on PyTorch: its default cache, the head for the last position only."""

from time import perf_counter

import torch
import transformers
from worker import serve


class Transformers:
    def __init__(self, model, cache, dtype, threads):
        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        self.about = f"DynamicCache, {self.model.config._attn_implementation} attention"

    @torch.inference_mode()
    def step(self, ids, cache=None):
        output = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1], output.past_key_values

    def generate(self, ids, batch_size, max_tokens):
        start = perf_counter()
        logits, cache = self.step(torch.tensor([ids] * batch_size))
        tokens = [logits.argmax(-1, keepdim=True)]
        first = perf_counter()
        while len(tokens) < max_tokens:
            logits, cache = self.step(tokens[-1], cache)
            tokens.append(logits.argmax(-1, keepdim=True))
        rows = torch.cat(tokens, 1).tolist()
        return first - start, perf_counter() - first, rows

    def logits(self, ids):
        return self.step(torch.tensor([ids]))[0][0].tolist()


serve(Transformers)
