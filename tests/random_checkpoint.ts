/** Models of any size on disk, written a little at a time, so that they may be larger than the memory. */

import { join } from "node:path";
import type { GPT2Config } from "../lib/gpt2/config.ts";
import { weightShapes } from "../lib/gpt2/weights.ts";
import { float32ToFloat16 } from "../lib/half.ts";
import { fillNormal } from "../lib/random.ts";

/** Writes `config.json` and random float16 weights, layer norms at 1 and 0, into `folder`; gives the file's bytes. */
export async function writeRandomCheckpoint(folder: string, config: GPT2Config, seed = 1): Promise<number> {
  await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify({ model_type: "gpt2", ...config }));
  const shapes = weightShapes(config), header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, shape] of shapes) {
    const begin = end;
    end += 2 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: "F16", shape, data_offsets: [begin, end] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  using file = await Deno.open(join(folder, "model.safetensors"), { create: true, write: true, truncate: true });
  const write = async ({ buffer, byteOffset, byteLength }: ArrayBufferView) => {
    for (let done = 0; done < byteLength;) {
      done += await file.write(new Uint8Array(buffer, byteOffset + done, byteLength - done));
    }
  };
  await write(new BigUint64Array([BigInt(text.length)]));
  await write(text);
  const chunk = new Float32Array(2 ** 20);
  for (const [name, shape] of shapes) {
    const count = shape.reduce((a, b) => a * b, 1);
    for (let done = 0; done < count; done += chunk.length) {
      const values = chunk.subarray(0, count - done);
      if (/ln_\w\.weight$/.test(name)) values.fill(1);
      else if (/\.bias$/.test(name)) values.fill(0);
      else fillNormal(values, seed++, 0.02);
      await write(float32ToFloat16(values));
    }
  }
  return 8 + text.length + end;
}
