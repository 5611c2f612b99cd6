/** Who is compared, in what precisions, and what each needs. */

import { fileURLToPath } from "node:url";
import type { Dtype } from "../../backend/ops.ts";
import type { BackendName } from "../../backend/types.ts";
import type { Contestant, Missing } from "./rounds.ts";
import { BENCH_FOLDER, installLlamaCpp, installPython, type Package } from "./environment.ts";
import { Peer } from "./protocol.ts";

/** One piece of software to compare with. */
export interface Candidate {
  /** What `--peers` calls it. */
  name: string;
  /** The precisions that it is asked for. llama.cpp calls its int8 q8_0. */
  dtypes: readonly Dtype[];
  /** Its worker, a file beside this one. */
  script: string;
  /** What is installed before that is started. */
  packages: readonly Package[];
}

const PYTORCH: Package = { python: ["torch==2.13.0", "transformers==5.23.0"], bytes: 249e6 };
const CTRANSLATE2: Package = { python: ["ctranslate2==4.8.5"], bytes: 43e6 };
const ONNX: Package = { python: ["onnxruntime==1.32.0", "onnx==1.23.2", "safetensors==0.8.0"], bytes: 55e6 };
const GGUF: Package = { python: ["gguf==0.19.0", "safetensors==0.8.0"], bytes: 19e6 };
const LLAMA_CPP: Package = { llamaCpp: true, bytes: 11e6 };

/** Everyone, Omnibus first. */
export const CANDIDATES: readonly Candidate[] = [
  { name: "omnibus", dtypes: ["float32", "bfloat16", "int8"], script: "omnibus_peer.ts", packages: [] },
  { name: "transformers", dtypes: ["float32", "bfloat16"], script: "transformers_peer.py", packages: [PYTORCH] },
  {
    name: "transformers-compiled",
    dtypes: ["float32", "bfloat16"],
    script: "transformers_compiled_peer.py",
    packages: [PYTORCH],
  },
  // Its converter reads the model with transformers.
  { name: "ctranslate2", dtypes: ["float32", "int8"], script: "ctranslate2_peer.py", packages: [PYTORCH, CTRANSLATE2] },
  { name: "onnxruntime", dtypes: ["float32", "int8"], script: "onnxruntime_peer.py", packages: [ONNX] },
  { name: "llama.cpp", dtypes: ["float32", "int8"], script: "llama_peer.py", packages: [GGUF, LLAMA_CPP] },
];

/** What every peer is started with. */
export interface StartOptions {
  /** A GPT-2's folder. */
  model: string;
  /** Where to keep what is converted from it. */
  cache: string;
  /** Of the weights. */
  dtype: Dtype;
  /** To compute with. */
  threads: number;
  /** Where Omnibus runs. */
  backend: BackendName | "auto";
}

/** Installs what is missing, starts a candidate's worker and waits until it has loaded the model. */
export async function startCandidate({ script, packages }: Candidate, options: StartOptions): Promise<Peer> {
  const path = fileURLToPath(new URL(script, import.meta.url)), { backend, ...common } = options;
  if (script.endsWith(".ts")) {
    return await Peer.start([Deno.execPath(), "run", "-A", path, JSON.stringify({ backend, ...common })]);
  }
  const argument = JSON.stringify(common);
  const env = packages.includes(LLAMA_CPP) ? { LLAMA_CPP: await installLlamaCpp() } : undefined;
  const python = await installPython(packages.flatMap(({ python = [] }) => python));
  return await Peer.start([python, path, argument], { env, cwd: BENCH_FOLDER });
}

/** The workers that could be started, and who is missing. They end with `await using` or when they are disposed of. */
export interface Started extends AsyncDisposable {
  /** In the order of the precisions, and within one in that of the candidates. */
  contestants: (Contestant & { generator: Peer })[];
  /** With the reasons. */
  missing: Missing[];
}

/** Starts a worker for every candidate and precision that it is asked for. */
export async function startAll(
  candidates: readonly Candidate[],
  dtypes: readonly Dtype[],
  { log, ...options }: Omit<StartOptions, "dtype"> & { log: (line: string) => void },
): Promise<Started> {
  const contestants: Started["contestants"] = [], missing: Missing[] = [];
  for (const dtype of dtypes) {
    for (const candidate of candidates.filter((one) => one.dtypes.includes(dtype))) {
      const { name } = candidate;
      log(`Starting ${name} ${dtype}`);
      try {
        contestants.push({ name, dtype, generator: await startCandidate(candidate, { ...options, dtype }) });
      } catch (error) {
        missing.push({ name, dtype, reason: (error as Error).message });
      }
    }
  }
  return {
    contestants,
    missing,
    async [Symbol.asyncDispose]() {
      for (const { generator } of contestants) await generator[Symbol.asyncDispose]();
    },
  };
}
