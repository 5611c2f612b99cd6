"""`deno task batch --ray`: a batch over the nodes of a Ray cluster, with Ray Data. Its one argument is JSON, from lib/batch/ray/run.ts.

Lines are read in ranges, those that have a result are left out, and a pool of actors answers the rest, each with a worker
process of its own, and writes a shard for each block of lines. What Ray runs again writes the same shard again.
"""

import json
import logging
import os
import re
import shutil
import socket
import sys
import time
import uuid
import warnings
from contextlib import contextmanager, redirect_stdout

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Before Ray is there: it tells nobody of its use, what goes wrong comes as an exception and not as a log besides, a model is
# sent although git does not keep it, and on nodes that are made here workers have the priority of everybody else.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
os.environ |= {"RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1", "RAY_worker_niceness": "0"}

import ray
from ray.data import ActorPoolStrategy, DataContext

import lines
import shards
import worker
from lines import MOST_BYTES, Lines, custom_id, identity
from shards import Shards, not_ours, shard_name
from worker import Worker

for module in (lines, shards, worker):
    ray.cloudpickle.register_pickle_by_value(module)  # nodes need not have these files

LIGHT = {"num_cpus": 0, "concurrency": 8}
"""For what moves lines: all cores are the actors', which wait for lines. Where a node is lost, those left may be full of actors."""


def named(batch: pa.Table, files: list[str]) -> pa.Table:
    """Each line's identity by its name, which lines may share, and by its place."""
    file, at, line = (batch[name].to_pylist() for name in batch.column_names)
    places = [identity(None, files[f], a) for f, a in zip(file, at)]
    names = [custom_id(one) for one in line]
    ids = [place if name is None else identity(name, "", 0) for name, place in zip(names, places)]
    return pa.table({"file": batch["file"], "at": batch["at"], "id": ids, "place": places})


def column(batch: pa.Table, name: str) -> np.ndarray:
    """Identities for NumPy, which compares them as if they went on with zeros."""
    return np.array(batch[name].to_pylist(), "S16")


ID = re.compile("^batch-([0-9a-f]{32})$")


def results_in(batch: pa.Table) -> pa.Table:
    """The identities of results and whether they are errors, which is null for what is no result of --ray."""
    ids, errors = [], []
    for line in batch["line"].to_pylist():
        try:
            result = json.loads(line)
            [name] = ID.findall(result["id"])
            ids.append(bytes.fromhex(name))
            errors.append(result.get("error") is not None)
        except (ValueError, TypeError, KeyError, AttributeError):
            ids.append(b"")
            errors.append(None)
    return pa.table({"file": batch["file"], "id": pa.array(ids, pa.binary()), "error": pa.array(errors, pa.bool_())})


@ray.remote(num_cpus=0)
def survey(wanted: str, there: str):
    """What input and output hold: numbers, which results are there, and the places of lines that share the name of one before
    them. Takes 60 bytes a line, on one node."""
    configure()
    source, found, errors, foreign = Lines(wanted), Lines(there), 0, set()
    about, done = [(np.array([], int), np.array([], int), NONE, NONE)], [NONE]
    for batch in batches_of(source, named, source.files):
        about.append((batch["file"].to_numpy(), batch["at"].to_numpy(), column(batch, "id"), column(batch, "place")))
    for batch in batches_of(found, results_in):
        done.append(column(batch, "id"))
        errors += pc.sum(batch["error"]).as_py() or 0
        foreign.update(batch.filter(pc.is_null(batch["error"]))["file"].to_pylist())
    if foreign:
        return {"foreign": found.files[min(foreign)]}, None, None
    file, at, ids, places = (np.concatenate(parts) for parts in zip(*about))
    done = np.sort(np.concatenate(done))
    order = np.lexsort((at, file, ids))
    again = order[1:][ids[order][1:] == ids[order][:-1]]
    ids[again] = places[again]
    missing = np.count_nonzero(~among(ids, done))
    numbers = {"lines": len(ids), "missing": missing, "twice": np.count_nonzero(done[1:] == done[:-1]), "errors": errors}
    return {name: int(number) for name, number in numbers.items()}, done, np.sort(places[again])


def known(numbers: ray.ObjectRef) -> dict:
    numbers = ray.get(numbers)
    if "foreign" in numbers:
        raise not_ours(numbers["foreign"])
    return numbers


NONE = np.array([], "S16")


def batches_of(source: Lines, look, *more):
    if not source.files:
        return []
    seen = ray.data.read_datasource(source, **LIGHT).map_batches(look, batch_format="pyarrow", fn_args=more, **LIGHT)
    return (batch for batch in seen.iter_batches(batch_size=None, batch_format="pyarrow") if len(batch))


def among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of some values are among those known, which are sorted."""
    if len(known) == 0:
        return np.zeros(len(values), bool)
    return known[np.searchsorted(known, values).clip(max=len(known) - 1)] == values


def wanted(batch: pa.Table, files: list[str], done, duplicates) -> pa.Table:
    """The lines that have no result, each with the identity of the one that it is to get."""
    about, done, duplicates = named(batch, files), ray.get(done[0]), ray.get(duplicates[0])
    again = pa.array(among(column(about, "place"), duplicates))
    ids = pc.if_else(again, about["place"], about["id"])
    batch = batch.append_column("id", ids).append_column("again", again)
    return batch.filter(pa.array(~among(column(batch, "id"), done)))


class Answerer:
    """An actor with a worker process, which has two blocks at once: while the last requests of one run, the next one's fill
    their seats."""

    def __init__(self, options: dict, files: list[str], output: Shards) -> None:
        self.worker, self.files, self.output = Worker(worker_command(options), options["window"]), files, output

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Writes the results of some lines; gives how many there are."""
        rows = batch.to_pylist()
        tally = {"results": len(rows), "tokens": 0, "recomputed": 0}
        name = shard_name([row["id"] for row in rows])
        if not rows or self.output.has(name):  # the actor that wrote it died before it could say so
            return pa.Table.from_pylist([tally])
        if self.output.start(name, len(rows)):
            tally["recomputed"] += len(rows)
        results = self._results(rows)
        self.output.commit(name, results)
        tally["recomputed"] += self.worker.take_lost()
        tally["tokens"] = sum(map(tokens_of, results))
        return pa.Table.from_pylist([tally])

    def _results(self, rows: list[dict]) -> list[dict]:
        asked = [i for i, row in enumerate(rows) if row["line"] and not row["again"]]
        answers = dict(zip(asked, self.worker.answer([rows[i]["line"] for i in asked]) if asked else []))
        results = []
        for i, row in enumerate(rows):
            answer = answers.get(i) or {"response": None, "error": DUPLICATE if row["line"] else TOO_LONG}
            error = answer["error"]
            if error:
                error = {name: value for name, value in error.items() if name != "line"}
                error |= {"file": self.files[row["file"]], "at": row["at"]}
            about = {"id": f"batch-{row['id'].hex()}", "custom_id": custom_id(row["line"])}
            results.append({**about, "response": answer["response"], "error": error})
        return results


def worker_command(options: dict) -> list[str]:
    """How to start a worker on this node: with the project and the model that are there, or those that were sent."""
    project, model = options["project"], options["model"]
    root = project if os.path.exists(os.path.join(project, "lib/cli/worker.ts")) else os.getcwd()
    if not os.path.exists(model):
        model = os.path.join(root, "models", os.path.basename(model))
    commands = options["workers"]
    command = next((command for command in commands if shutil.which(command[0])), commands[-1])
    return [part.replace("{project}", root).replace("{model}", model) for part in command]


def tokens_of(result: dict) -> int:
    return ((result["response"] or {}).get("body", {}).get("usage") or {}).get("completion_tokens", 0)


TOO_LONG = {"code": "invalid_json_line", "message": f"This line is longer than {MOST_BYTES} bytes."}
DUPLICATE = {
    "code": "duplicate_custom_id",
    "message": "This custom_id stands in a line before this one, and only that is answered.",
    "param": "custom_id",
}


def configure() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars, context.issue_detectors_config.detectors = False, []
    warnings.filterwarnings("ignore", module="ray.data")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what goes wrong comes as an exception besides
    logging.getLogger("ray._private.utils").setLevel(logging.WARNING)


@contextmanager
def cluster(options: dict):
    """Joins a cluster, or makes one; gives how many nodes are its own."""
    address, quiet = options["address"], {"logging_level": "error", "log_to_driver": False}
    if not address.startswith("local:"):
        knock(address)
        in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # its files were sent with it
        try:
            ray.init(address, runtime_env=None if in_job else sent_project(options), **quiet)
        except ConnectionError as error:
            raise nobody_at(address) from error
        wait_for_room(options)
        yield 0
        return
    from ray.cluster_utils import Cluster

    nodes = int(address.removeprefix("local:"))
    if options["least"] > 2 * nodes:
        raise ValueError(f"--min-actors can be at most {2 * nodes}: the nodes of {address} have no room for more.")
    # Twice the cores that its own actor takes: room for that of a node that is lost.
    node = {"num_cpus": 2 * options["cpus"], "num_gpus": 2 * options["gpus"], "object_store_memory": 100 << 20}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(**node)
        ray.init(made.address, **quiet)
        yield nodes
    finally:
        ray.shutdown()
        made.shutdown()


def knock(address: str) -> None:
    """Ray tries for a quarter of an hour where nobody listens, and nearly as long where somebody else does."""
    os.environ["RAY_gcs_server_port_wait_time_s"] = "1"  # once
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:  # the latter for a port beyond 65,535
            raise nobody_at(address) from error


def nobody_at(address: str) -> ConnectionError:
    return ConnectionError(f"No Ray cluster answers at {address}. --ray local:1 makes one on this machine.")


def wait_for_room(options: dict) -> None:
    """A task that asks for what an actor takes shows whether there is room for one. A cluster may grow until there is."""
    cores, gpus, patience = options["cpus"], options["gpus"], options["patience"]
    room = ray.remote(num_cpus=cores, num_gpus=gpus)(lambda: None).remote()
    full = f"No node of the cluster has the {cores} cores and {gpus} GPUs of an actor free"
    if not ray.wait([room], timeout=min(10, patience))[0]:
        say(f"{full}: waiting up to {patience} s for one that has.")
        if not ray.wait([room], timeout=patience)[0]:
            raise ValueError(f"{full}: lower --cpus-per-actor or --gpus-per-actor.")
    ray.get(room)


def sent_project(options: dict) -> dict:
    """The parts of the project that a worker needs, and the model if it is one of the project's."""
    project, model = options["project"], options["model"]
    models = os.path.join(project, "models")
    kept = {"lib", "deno.json", "deno.lock"}
    excludes = [f"/{name}" for name in os.listdir(project) if name not in kept | {"models"}]
    excludes += [f"/models/{name}" for name in os.listdir(models) if os.path.join(models, name) != model]
    return {"working_dir": project, "excludes": excludes}


def main(options: dict) -> int:
    suffix = ".parquet" if options["input"].endswith(".parquet") else ".jsonl"
    output = Shards(options["output"], suffix, uuid.uuid4().hex)
    settings = json.dumps(options["settings"], sort_keys=True)
    if not Lines(options["input"]).files:
        raise FileNotFoundError(f"--input names no file: {options['input']}.")
    output.check(settings)
    if output.is_among(options["input"]):
        raise ValueError(f"--output lies where --input finds its files: the results in {options['output']} would be requests.")
    configure()
    with cluster(options) as nodes:
        recomputed = output.begin(settings)  # not before: it ends the run that had the output
        look = survey.options(num_returns=3)
        places = options["input"], f"{options['output']}/*{suffix}"
        numbers, done, duplicates = look.remote(*places)
        before = known(numbers)
        if before["missing"] < before["lines"] or recomputed:
            found = before["lines"] - before["missing"]
            say(f"{found} of {before['lines']} results are there; {recomputed} requests were under way when the last run ended.")
        if before["missing"]:
            recomputed += answer_missing(options, output, nodes, [done], [duplicates], before)
        after = known(look.remote(*places)[0])
    if after["missing"] or after["twice"]:
        raise RuntimeError(
            f"{after['missing']} lines have no result, and {after['twice']} have two: the input changed, or another run wrote "
            f"{options['output']}. Take another --output."
        )
    summary = f"{after['lines']} results, {after['errors']} errors, {recomputed} requests computed again"
    print(f"{options['output']} is ready: {summary}.", file=sys.__stdout__)
    return 1 if after["errors"] else 0


def answer_missing(options: dict, output: Shards, nodes: int, done: list, duplicates: list, numbers: dict) -> int:
    """Has all lines answered that are left; gives how many of them were computed again."""
    source = Lines(options["input"])
    least = options["least"] or nodes or 1
    room = nodes or int(ray.cluster_resources().get("CPU", 1) // options["cpus"])
    most = max(least, options["most"] or room)
    bytes_a_line = sum(source.sizes) / numbers["lines"]
    missing = ray.data.read_datasource(source, **LIGHT).map_batches(
        wanted, batch_format="pyarrow", fn_args=(source.files, done, duplicates), **LIGHT
    )
    rows = options["block"] * blocks_a_task(numbers["missing"] / options["block"], bytes_a_line * options["block"], most)
    tasks = missing.repartition(target_num_rows_per_block=rows)
    tasks._logical_plan.dag.ray_remote_args["num_cpus"] = LIGHT["num_cpus"]  # repartition() has no argument for it
    tallies = tasks.map_batches(
        Answerer,
        batch_size=options["block"],
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=least,
            max_size=most,
            max_concurrent_calls_per_actor=2,
            enable_true_multi_threading=True,
        ),
        fn_constructor_args=(options, source.files, output),
        num_cpus=options["cpus"],
        num_gpus=options["gpus"] or None,
    )
    began, shown, sums = time.monotonic(), 0, {"results": 0, "tokens": 0, "recomputed": 0}
    for tally in tallies.iter_rows():
        sums = {key: sums[key] + tally[key] for key in sums}
        seconds, tenth = time.monotonic() - began, sums["results"] * 10 // numbers["missing"]
        if sys.stderr.isatty() or tenth > shown:
            shown, left = tenth, numbers["missing"] - sums["results"]
            done_lines = numbers["lines"] - left
            say(
                f"{done_lines} of {numbers['lines']} lines  {sums['tokens'] / seconds:.0f} tokens/s  "
                f"{left * seconds / max(1, sums['results']):.0f} s left"
            )
    return sums["recomputed"]


def blocks_a_task(blocks: float, size: float, actors: int) -> int:
    """What is small goes through the driver and stays in its memory until its turn: a task takes blocks of a megabyte together,
    or fewer, where each actor would have less than 64 tasks. Each block is a shard by itself all the same."""
    return max(1, int(min(blocks / (64 * actors), (1 << 20) / size)))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of what died
            code = main(json.loads(sys.argv[1]))
    except KeyboardInterrupt:
        code = 130
    except (RuntimeError, ray.exceptions.RayError) as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
        if isinstance(error, ray.exceptions.RayError):  # which has the way there before what went wrong, and advice after it
            said = re.findall(r"^\w+Error: (.*)", str(error), re.MULTILINE)[-1:] or said[-1:]
        say(f"batch: {' '.join(said)}")
        code = 1
    except (ValueError, OSError) as error:
        say(f"batch: {error}")
        code = 2
    sys.exit(code)
