/**
 * How the bench talks to a peer: a process that reads a line of JSON and answers with one. It first says that it is
 * ready, {@link Introduction}; then it answers each {@link Work} with a {@link Generation}, each {@link Traffic} with what it
 * {@link Served}, and each prompt alone, `{"ids": […]}`, with `{"logits": […]}`. Whatever goes wrong ends it; the last line on
 * its stderr says why.
 */

import type { StepRecord } from "../../engine/timeline.ts";
import { writeAll } from "../../util/files.ts";
import { lines } from "../../util/lines.ts";

/** What a peer says when it is ready. */
export interface Introduction {
  /** Which of its ways it uses, in a few words. */
  about: string;
  /** Of the software that computes. */
  versions: Record<string, string>;
}

/** One batch: the same prompt in every row. The end-of-text token is a token like any other. */
export interface Work {
  /** The prompt's tokens. */
  ids: readonly number[];
  /** Rows. */
  batchSize: number;
  /** New tokens of every row. */
  maxTokens: number;
}

/** What a peer made of a batch, and how long it took. */
export interface Generation {
  /** Until the first new token of every row. */
  prefillSeconds: number;
  /** From then to the last. */
  decodeSeconds: number;
  /** The new tokens, row by row. */
  tokens: number[][];
}

/** A request. The end-of-text token is a token like any other. */
export interface Asked {
  /** Its tokens. */
  prompt: readonly number[];
  /** How many it gets. */
  maxTokens: number;
  /** When it comes, in seconds from the beginning. */
  arrivalSeconds: number;
}

/** `static`: as many as there are seats at a time, in order, until the last of them has ended. `continuous`: whoever ends leaves. */
export type Batching = "static" | "continuous";

/** Requests of different lengths, each of which comes at its time. */
export interface Traffic {
  batching: Batching;
  /** How many are answered at once, at most. */
  seats: number;
  requests: readonly Asked[];
}

/** What a peer made of some traffic. */
export interface Served {
  /** For each request, when each of its tokens was there, in seconds from the beginning. */
  seconds: number[][];
  /** The tokens themselves. */
  tokens: number[][];
  /** What its steps were, where it tells. */
  steps?: StepRecord[];
}

/** Something that generates: a {@link Peer}, or a stand-in. */
export interface Generator {
  /** Generates greedily. */
  generate(work: Work): Promise<Generation>;
  /** Answers requests, greedily too. Not everybody can. */
  serve?(traffic: Traffic): Promise<Served>;
  /** The logits after the last token of a prompt. */
  logits(ids: readonly number[]): Promise<number[]>;
}

/** A peer's process. */
export class Peer implements Generator, AsyncDisposable {
  #lines: AsyncGenerator<string>;
  #input: WritableStreamDefaultWriter<Uint8Array>;
  #stderr = "";
  #listening: Promise<void>;

  private constructor(private readonly process: Deno.ChildProcess) {
    this.#lines = lines(process.stdout);
    this.#input = process.stdin.getWriter();
    this.#listening = this.#listen();
  }

  /** What it says of itself. */
  introduction!: Introduction;

  /** Starts a process and waits until it is ready. Throws an error with its last words if it ends instead. */
  static async start(
    command: readonly string[],
    { env, cwd }: { env?: Record<string, string>; cwd?: string | URL } = {},
  ): Promise<Peer> {
    const [program, ...args] = command;
    const options = { args, env, cwd, stdin: "piped", stdout: "piped", stderr: "piped" } as const;
    const peer = new Peer(new Deno.Command(program, options).spawn());
    peer.introduction = await peer.#answer<Introduction>();
    return peer;
  }

  /** Generates greedily. */
  async generate(work: Work): Promise<Generation> {
    return await this.ask<Generation>(work);
  }

  /** Answers requests. */
  async serve(traffic: Traffic): Promise<Served> {
    return await this.ask<Served>(traffic);
  }

  /** The logits after the last token of a prompt. */
  async logits(ids: readonly number[]): Promise<number[]> {
    return (await this.ask<{ logits: number[] }>({ ids })).logits;
  }

  /** Asks anything, and gives the answer. */
  async ask<T>(request: unknown): Promise<T> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(request) + "\n")).catch(() => {}); // #answer tells
    return await this.#answer<T>();
  }

  /** Ends the process. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close().catch(() => {}); // it may have ended by itself
    await this.process.status;
    await this.#lines.return(undefined);
    await this.#listening;
  }

  async #answer<T>(): Promise<T> {
    const { value } = await this.#lines.next();
    if (value !== undefined) return JSON.parse(value);
    const { code, signal } = await this.process.status;
    await this.#listening;
    const last = this.#stderr.trimEnd().split("\n").at(-1);
    throw new Error(last || `It ended with ${signal ?? `code ${code}`} and without a word.`);
  }

  async #listen(): Promise<void> {
    for await (const text of this.process.stderr.pipeThrough(new TextDecoderStream())) {
      this.#stderr = (this.#stderr + text).slice(-10_000);
    }
  }
}

/** Answers a bench on stdin and stdout until it ends: the other side of {@link Peer}, for peers in TypeScript. */
export async function serve(introduction: Introduction, generator: Generator): Promise<void> {
  const answer = (message: unknown) => writeAll(Deno.stdout, new TextEncoder().encode(JSON.stringify(message) + "\n"));
  await answer(introduction);
  for await (const line of lines(Deno.stdin.readable)) {
    const request = JSON.parse(line);
    if (request.requests) await answer(await generator.serve!(request));
    else if (request.batchSize) await answer(await generator.generate(request));
    else await answer({ logits: await generator.logits(request.ids) });
  }
}
