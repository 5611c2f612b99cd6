"""OpenAI's Python client against a server: prints what it got as JSON. Arguments: the server's URL."""

import asyncio
import json
import sys

import openai

url = sys.argv[1] + "/v1"
client = openai.OpenAI(base_url=url, api_key="none", max_retries=5)
ask = {"model": "small", "prompt": "Call me", "max_tokens": 12, "temperature": 0}


def error(**body):
    try:
        client.completions.create(**{**ask, **body})
    except openai.APIStatusError as found:
        return [type(found).__name__, found.status_code, found.code]


async def cancelled():
    """A request that is cancelled while it runs."""
    own = openai.AsyncOpenAI(base_url=url, api_key="none")
    task = asyncio.create_task(
        own.completions.create(**{**ask, "max_tokens": 250, "extra_body": {"ignore_eos": True}})
    )
    while not (await own.get(f"{sys.argv[1]}/metrics", cast_to=str)).count("omnibus_seats_taken 1"):
        pass
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True


def whole(completion):
    return [choice.text for choice in completion.choices]


streamed = ["", ""]
for chunk in client.completions.create(
    **{**ask, "n": 2, "temperature": 1, "seed": 5, "stream": True, "stream_options": {"include_usage": True}}
):
    for choice in chunk.choices:
        streamed[choice.index] += choice.text
stopped = client.completions.create(**{**ask, "stop": ["\0", " the"], "logprobs": 2, "echo": True})
print(
    json.dumps(
        {
            "whole": whole(client.completions.create(**ask)),
            "several": whole(client.completions.create(**{**ask, "prompt": ["Call me", "It is"]})),
            "n": whole(client.completions.create(**{**ask, "n": 2, "temperature": 1, "seed": 5})),
            "streamed": streamed,
            "usage": chunk.usage.total_tokens,
            "stopped": whole(stopped),
            "logprobs": stopped.choices[0].logprobs.token_logprobs,
            "errors": [error(model="gpt-5"), error(max_tokens=300), error(temperature=-1)],
            "cancelled": asyncio.run(cancelled()),
            "models": [model.id for model in client.models.list()],
        }
    )
)
