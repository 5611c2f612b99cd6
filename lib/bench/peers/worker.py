"""What the peers in Python share: a line of JSON in, a line of JSON out, and files that are made once.

A peer is a process. Its argument is JSON: `model` (a GPT-2's folder as Hugging Face has it), `cache` (where to keep what
is converted from it), `dtype` and `threads`. It answers when it is ready, and then every line on its standard input; see
`protocol.ts` for what is in them.
"""

import json
import os
import shutil
import sys


def serve(load):
    """Answers requests until the input ends. `load(model, cache, dtype, threads)` gives the peer: an object with `about`
    and `versions`, `generate(ids, batch_size, max_tokens)` -> (prefill seconds, decode seconds, tokens of each row),
    `serve(requests, seats, batching)`, if it takes requests of different lengths, -> (seconds of each one's tokens, the
    tokens), and `logits(ids)` -> the logits after the last of one prompt's tokens."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is for people, not for the bench
    peer = load(**json.loads(sys.argv[1]))

    def answer(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    answer({"about": peer.about, "versions": peer.versions})
    for line in sys.stdin:
        request = json.loads(line)
        if "requests" in request:
            work = [(one["prompt"], one["maxTokens"]) for one in request["requests"]]
            seconds, tokens = peer.serve(work, request["seats"], request["batching"])
            answer({"seconds": seconds, "tokens": tokens})
            continue
        if "batchSize" not in request:
            answer({"logits": [float(value) for value in peer.logits(request["ids"])]})
            continue
        prefill, decode, tokens = peer.generate(request["ids"], request["batchSize"], request["maxTokens"])
        answer({"prefillSeconds": prefill, "decodeSeconds": decode, "tokens": tokens})


def made_once(path, make):
    """`path`, which `make(unfinished)` has written: now, or when this was first asked for."""
    if not os.path.exists(path):
        unfinished = f"{path}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        print(f"Converting the model to {os.path.basename(path)}.", file=sys.stderr)
        make(unfinished)
        os.rename(unfinished, path)
    return path
