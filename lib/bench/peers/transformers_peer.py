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

    def serve(self, requests, seats, batching):
        return (self.in_batches if batching == "static" else self.continuously)(requests, seats)

    @torch.inference_mode()
    def in_batches(self, requests, seats):
        """`generate`, batch after batch, each until the last of its requests has ended; padded on the left."""
        seconds, answers, start = [], [], perf_counter()
        for first in range(0, len(requests), seats):
            batch, clock = requests[first : first + seats], Clock(start)
            width, most = max(len(prompt) for prompt, _ in batch), max(count for _, count in batch)
            inputs = {
                "input_ids": torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in batch]),
                "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in batch]),
            }
            options = {"max_new_tokens": most, "do_sample": False, "stopping_criteria": [clock]}
            rows = self.model.generate(**inputs, eos_token_id=None, pad_token_id=0, **options)[:, width:].tolist()
            seconds += [clock.seconds[:count] for _, count in batch]
            answers += [row[:count] for row, (_, count) in zip(rows, batch)]
        return seconds, answers

    def continuously(self, requests, seats):
        """The manager that `generate_batch` uses, which takes a length for each request."""
        longest = max(len(prompt) + count for prompt, count in requests)
        config = transformers.ContinuousBatchingConfig(
            max_requests_per_batch=seats,
            max_batch_tokens=max(512, longest),
            num_blocks=seats * -(-longest // 256) + 1,
            allow_block_sharing=False,  # no two of these prompts begin alike
        )
        generation = transformers.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
        with self.model.continuous_batching_context_manager(generation, continuous_batching_config=config) as manager:
            start = perf_counter()
            for i, (prompt, count) in enumerate(requests):
                manager.add_request(prompt, request_id=str(i), max_new_tokens=count, record_timestamps=True)
            results = {}
            while len(results) < len(requests):
                result = manager.get_result(timeout=1)
                if result is None and not manager.is_running():
                    raise RuntimeError("its thread for continuous batching has ended")
                if result is not None and result.is_finished():
                    if result.error:
                        raise RuntimeError(result.error)
                    results[int(result.request_id)] = result
        ordered = [results[i] for i in range(len(requests))]
        return [[at - start for at in one.timestamps] for one in ordered], [one.generated_tokens for one in ordered]

    @torch.inference_mode()
    def logits(self, ids):
        positions = torch.arange(len(ids))[None]
        return self.forward(torch.tensor([ids]), positions, self.empty_cache(1, len(ids)))[0].tolist()


class Clock(transformers.StoppingCriteria):
    """Never stops, and knows when each token was there."""

    def __init__(self, start):
        self.start, self.seconds = start, []

    def __call__(self, input_ids, scores, **kwargs):
        self.seconds.append(perf_counter() - self.start)
        return torch.zeros(len(input_ids), dtype=torch.bool)


if __name__ == "__main__":
    serve(Transformers)
