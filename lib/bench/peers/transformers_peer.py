"""Hugging Face transformers on PyTorch: its default cache, the head for the last position only."""

from time import perf_counter

import torch
import transformers
from worker import serve


class Transformers:
    about = "DynamicCache, scaled_dot_product_attention"

    def __init__(self, model, cache, dtype, threads):
        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.versions = {"transformers": transformers.__version__, "torch": torch.__version__}

    def empty_cache(self, batch_size, slots):
        return transformers.DynamicCache(config=self.model.config)

    def forward(self, ids, positions, cache):
        """ids [B, T], positions [1, T] -> the logits after the last of each row, [B, V]; fills the cache."""
        output = self.model(ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1]

    def prefill(self, ids, cache):
        return self.forward(ids, torch.arange(ids.shape[1])[None], cache).argmax(-1, keepdim=True)

    def decode(self, tokens, position, cache):
        return self.forward(tokens, position, cache).argmax(-1, keepdim=True)

    @torch.inference_mode()
    def generate(self, ids, batch_size, max_tokens):
        cache = self.empty_cache(batch_size, len(ids) + max_tokens)
        start = perf_counter()
        tokens = [self.prefill(torch.tensor([ids] * batch_size), cache)]
        first = perf_counter()
        while len(tokens) < max_tokens:
            position = torch.tensor([[len(ids) + len(tokens) - 1]])
            tokens.append(self.decode(tokens[-1], position, cache))
        rows = torch.cat(tokens, 1).tolist()
        return first - start, perf_counter() - first, rows

    @torch.inference_mode()
    def logits(self, ids):
        positions = torch.arange(len(ids))[None]
        return self.forward(torch.tensor([ids]), positions, self.empty_cache(1, len(ids)))[0].tolist()


if __name__ == "__main__":
    serve(Transformers)
