"""CTranslate2, with the weights as its own converter for transformers writes them."""

import json
from os.path import join
from time import perf_counter

import ctranslate2
import numpy
from worker import made_once, serve


class CTranslate2:
    def __init__(self, model, cache, dtype, threads):
        def convert(folder):
            ctranslate2.converters.TransformersConverter(model).convert(folder)

        folder = made_once(join(cache, "ctranslate2"), convert)
        self.generator = ctranslate2.Generator(folder, compute_type=dtype, inter_threads=1, intra_threads=threads)
        with open(join(folder, "vocabulary.json"), encoding="utf-8") as file:
            self.words = json.load(file)  # it takes tokens by their names
        self.versions = {"ctranslate2": ctranslate2.__version__}
        self.about = f"Generator, compute type {self.generator.compute_type}"

    def run(self, ids, batch_size, max_tokens):
        start = perf_counter()
        results = self.generator.generate_batch(
            [[self.words[id] for id in ids]] * batch_size,
            beam_size=1,
            min_length=max_tokens,
            max_length=max_tokens,
            include_prompt_in_result=False,
        )
        return perf_counter() - start, [result.sequences_ids[0] for result in results]

    def generate(self, ids, batch_size, max_tokens):
        """It does not tell when the first token is there: another run, of one token, shows how long that takes."""
        total, tokens = self.run(ids, batch_size, max_tokens)
        prefill = self.run(ids, batch_size, 1)[0]
        return prefill, total - prefill, tokens

    def logits(self, ids):
        return numpy.array(self.generator.forward_batch([ids]))[0, -1]


serve(CTranslate2)
