"""Hugging Face transformers on PyTorch with a static cache and compiled decoding steps, as its `generate` does it."""

import os
import sys
from os.path import join

cache_folder = join(os.getcwd(), "inductor")  # the working directory is the bench's own
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache_folder)  # read when torch is loaded

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers_peer import Transformers  # noqa: E402
from worker import serve  # noqa: E402


class CompiledTransformers(Transformers):
    about = "StaticCache, torch.compile for each batch size"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        torch._dynamo.config.recompile_limit = 1000  # a version for each batch size
        self.decode = torch.compile(self.decode, dynamic=False)
        self.caches = {}
        print("Compiling.", file=sys.stderr)
        self.generate([1], 1, 2)  # fails here, before the comparison, where there is no C++ compiler

    def empty_cache(self, *key):
        if key not in self.caches:
            self.caches[key] = transformers.StaticCache(config=self.model.config, max_cache_len=key[1])
        self.caches[key].reset()
        return self.caches[key]


serve(CompiledTransformers)
