/** Text without a line's end: `console.log` adds one. */

/** Writes all of a text to stdout, or to stderr. One call of `writeSync` may take less, as pipes do. */
export function print(text: string, stream: { writeSync(bytes: Uint8Array): number } = Deno.stdout): void {
  for (let rest = new TextEncoder().encode(text); rest.length > 0;) rest = rest.subarray(stream.writeSync(rest));
}
