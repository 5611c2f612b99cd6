"""Stands in for `deno task worker`: the same lines in and out, without a model. The prompt "poison" kills it. Its argument is
how many seconds a request takes."""

import json
import os
import sys
import time

for number, line in enumerate(sys.stdin.buffer, 1):
    try:
        prompt = json.loads(line)["body"]["prompt"]
    except (ValueError, KeyError):
        error = {"code": "invalid_json_line", "message": "This line is no request.", "line": number}
        print(json.dumps({"id": f"line-{number}", "custom_id": None, "response": None, "error": error}), flush=True)
        continue
    if prompt == "poison":
        os._exit(9)
    time.sleep(float(sys.argv[1]))
    body = {"choices": [{"text": prompt.upper()}], "usage": {"completion_tokens": 1}}
    response = {"status_code": 200, "request_id": "r", "body": body}
    print(json.dumps({"id": f"line-{number}", "custom_id": "?", "response": response, "error": None}), flush=True)
