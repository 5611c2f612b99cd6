/** What tests of downloads share: a tiny model's files, and a folder for models beside a fake hub. */

import assert from "node:assert/strict";
import { join } from "node:path";
import * as gpt2Checks from "../../lib/gpt2/folder.ts";
import { installModel, type InstallModelOptions } from "../../lib/hub/install.ts";
import type { HubSettings } from "../../lib/hub/settings.ts";
import { FakeHub, type FakeHubOptions } from "./fake_hub.ts";
import { writeTinyModel } from "./tiny_models.ts";

/** The token that must not be seen anywhere but at the hub. */
export const TOKEN = "hf_a1B2c3D4e5F6-never-show-me";

const TOKENIZER = JSON.stringify({
  added_tokens: [{ id: 2, content: "<|endoftext|>", special: true, normalized: false }],
  normalizer: null,
  post_processor: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false },
  decoder: { type: "ByteLevel" },
  model: { type: "BPE", vocab: { a: 0, b: 1, "<|endoftext|>": 2 }, merges: [] },
});

/** A model as a hub holds it: 1.7 MB of weights, unless `config` says otherwise, and files that are of no use here. */
export async function modelFiles(config: Record<string, unknown> = {}): Promise<Map<string, Uint8Array>> {
  const folder = await writeTinyModel({ seed: 1, config: { vocab_size: 2000, n_embd: 96, ...config } });
  const files = new Map<string, Uint8Array>();
  for (const name of ["config.json", "model.safetensors"]) files.set(name, await Deno.readFile(join(folder, name)));
  await Deno.remove(folder, { recursive: true });
  for (
    const [name, text] of [["tokenizer.json", TOKENIZER], ["tokenizer_config.json", "{}"], ["README.md", "# Tiny"]]
  ) {
    files.set(name, new TextEncoder().encode(text));
  }
  return files.set("pytorch_model.bin", new Uint8Array(10)).set("onnx/config.json", new Uint8Array(10));
}

/** A fake hub and a folder for models, both gone at the end. */
export class Place implements AsyncDisposable {
  /** What was logged, and the seconds that were waited, in order. */
  readonly log: string[] = [];
  readonly waits: number[] = [];

  private constructor(readonly hub: FakeHub, readonly root: string) {}

  static async make(files?: Map<string, Uint8Array>, options: FakeHubOptions = {}): Promise<Place> {
    const root = await Deno.realPath(await Deno.makeTempDir({ prefix: "omnibus-hub-" }));
    await Deno.mkdir(join(root, "models"));
    return new Place(new FakeHub(files ?? await modelFiles(), options), root);
  }

  get models(): string {
    return join(this.root, "models");
  }

  get cache(): string {
    return join(this.root, "cache");
  }

  get settings(): HubSettings {
    return { endpoint: new URL(this.hub.endpoint), token: TOKEN, cache: this.cache, offline: false };
  }

  /** Installs without waiting between attempts. */
  install(options: InstallModelOptions = {}, name = this.hub.repository) {
    return installModel(name, gpt2Checks, {
      into: this.models,
      settings: this.settings,
      log: (line) => this.log.push(line),
      wait: (seconds) => Promise.resolve(void this.waits.push(seconds)),
      ...options,
    });
  }

  /** The folder of the model, if all of its files are right; what must hold after every success. */
  async assertInstalled(folder = join(this.models, this.hub.repository.replace("/", "--"))): Promise<void> {
    const wanted = [...this.hub.files.keys()].filter((name) => /^(config|tokenizer|model)[^/]*$/.test(name));
    assert.deepEqual(namesIn(folder), [...wanted, "hub.json"].sort());
    for (const name of wanted) {
      assert.deepEqual(await Deno.readFile(join(folder, name)), this.hub.files.get(name), name);
    }
    assert.deepEqual(namesIn(join(this.models, ".downloads")).filter((name) => !name.endsWith(".lock")), []);
  }

  /** Installing fails with this message, and nothing can be found under the model's name. */
  async assertRefused(message: RegExp, options: InstallModelOptions = {}, name = this.hub.repository): Promise<Error> {
    let error: Error | undefined;
    await assert.rejects(this.install(options, name), (thrown: Error) => {
      error = thrown;
      return true;
    });
    assert.match(`${error}`, message);
    assert.ok(!`${error}${Deno.inspect(error)}${this.log}`.includes(TOKEN), "the token is in the error");
    assert.ok(!/s3cr3t/.test(`${error}${this.log}`), "a signature is in the error");
    assert.deepEqual(namesIn(this.models).filter((name) => name !== ".downloads"), []);
    return error!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hub[Symbol.asyncDispose]();
    await Deno.remove(this.root, { recursive: true });
  }
}

/** The sorted names in a folder; none if there is no folder. */
export function namesIn(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  } catch {
    return [];
  }
}
