/** The files of the shipped model, fetched once and then kept by the browser (Cache API). */

const CACHE = "omnibus-model";
const NAMES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] as const;

/** The files by name. */
export type ModelFiles = Record<typeof NAMES[number], Blob>;

/** Bytes of all files, as the server tells before they are fetched. */
export async function sizeOfFiles(folder: string): Promise<number> {
  const sizes = await Promise.all(NAMES.map(async (name) => {
    const { ok, status, headers } = await fetch(`${folder}/${name}`, { method: "HEAD" });
    if (!ok) throw new Error(`The model cannot be fetched: ${name} is answered with ${status}.`);
    return Number(headers.get("content-length"));
  }));
  return sizes.reduce((a, b) => a + b);
}

/** Gets what is not kept yet, and keeps it. `onProgress` hears of bytes. Throws the signal's reason if it is aborted. */
export async function fetchFiles(
  folder: string,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (done: number) => void },
): Promise<ModelFiles> {
  const cache = await caches.open(CACHE).catch(() => undefined); // where nothing may be kept, it is fetched each time
  const files: Partial<ModelFiles> = {};
  let done = 0;
  for (const name of NAMES) {
    const url = new URL(`${folder}/${name}`, location.href).href, kept = await cache?.match(url);
    files[name] = kept ? await kept.blob() : await download(url, signal, (bytes) => onProgress(done + bytes));
    if (!kept) await cache?.put(url, new Response(files[name])).catch(() => {}); // the disk may be full
    onProgress(done += files[name].size);
  }
  return files as ModelFiles;
}

async function download(url: string, signal: AbortSignal, onProgress: (bytes: number) => void): Promise<Blob> {
  const { ok, status, body } = await fetch(url, { signal });
  if (!ok || !body) throw new Error(`The model cannot be fetched: ${url} is answered with ${status}.`);
  const parts: BlobPart[] = [];
  let bytes = 0;
  for await (const part of body) {
    parts.push(part);
    onProgress(bytes += part.length);
  }
  return new Blob(parts);
}
