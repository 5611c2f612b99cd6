/** Asks the hub: follows its redirects, keeps the token from other hosts, gives up on servers that fall silent. */

import { HubError, Interruption } from "./error.ts";
import { redirectTarget } from "./redirect.ts";
import type { HubSettings } from "./settings.ts";

/** How patient a client is. */
export interface ClientOptions {
  /** Seconds without a byte after which a connection counts as broken. Default 30. */
  stallSeconds?: number;
  /** Seconds that the whole list of a model's files may take, and each file besides a second for each kilobyte. Default 60. */
  listSeconds?: number;
}

/** A server's answer that is neither a redirect nor a refusal. */
export interface Answer {
  /** Of the server that sends the body. */
  readonly response: Response;
  /** The commit that the hub itself, before it redirected elsewhere, says the file is of. */
  readonly commit?: string;
  /** The checksum that it says the file has. */
  readonly checksum?: string;
  /** The body. Throws an {@link Interruption} when it stops coming. */
  chunks(): AsyncGenerator<Uint8Array<ArrayBuffer>>;
}

const MAX_REDIRECTS = 5;

/** Passed on: only who asked for a range knows what to do. */
export const RANGE_NOT_SATISFIABLE = 416;

/** Sends requests to one hub. */
export class HubClient {
  readonly #endpoint: URL;
  readonly #token?: string;
  readonly #authorization: { authorization?: string };
  readonly #tokenNote: string;
  readonly #stallSeconds: number;
  /** Seconds that a list of files may take, from {@link ClientOptions}. */
  readonly listSeconds: number;

  /** The token goes to the endpoint's own host only, and only over https or within this machine. */
  constructor(
    { endpoint, token }: Pick<HubSettings, "endpoint" | "token">,
    { stallSeconds = 30, listSeconds = 60 }: ClientOptions = {},
  ) {
    this.#endpoint = endpoint;
    this.#token = token;
    const safe = endpoint.protocol === "https:" || /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(endpoint.hostname);
    this.#authorization = token && safe ? { authorization: `Bearer ${token}` } : {};
    this.#tokenNote = !token
      ? "no token was sent: set HF_TOKEN if it needs one"
      : safe
      ? "the token that was sent does not open it"
      : "the token was not sent, because HF_ENDPOINT is not https";
    this.#stallSeconds = stallSeconds;
    this.listSeconds = listSeconds;
  }

  /**
   * Gets a path below the endpoint and hands the answer to `use`; the connection ends with it. Throws a
   * {@link HubError} when the hub refuses or takes more than `mostSeconds` for all of it, and an {@link Interruption} when
   * trying again may help.
   */
  async get<T>(
    path: string,
    headers: Record<string, string>,
    use: (answer: Answer) => Promise<T>,
    mostSeconds = Infinity,
  ): Promise<T> {
    using watchdog = new Watchdog(this.#stallSeconds, mostSeconds);
    let response: Response | undefined;
    try {
      const followed = await this.#follow(path, headers, watchdog);
      response = followed.response;
      const chunks = bodyOf(response, watchdog);
      return await use({ ...followed, chunks: () => chunks });
    } finally {
      watchdog.abort(); // whatever is left of the body
      await response?.body?.cancel().catch(() => {});
    }
  }

  async #follow(path: string, headers: Record<string, string>, watchdog: Watchdog): Promise<Omit<Answer, "chunks">> {
    let url = new URL(`${this.#endpoint.href.replace(/\/$/, "")}/${path}`);
    let atHome = true, commit: string | undefined, checksum: string | undefined;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      atHome &&= url.origin === this.#endpoint.origin; // who has left does not get the token again
      const response = await send(url, {
        "accept-encoding": "identity", // sizes and ranges are those of the file
        ...headers,
        ...atHome && this.#authorization,
      }, watchdog);
      if (atHome && response.headers.has("x-repo-commit")) {
        commit = response.headers.get("x-repo-commit")!;
        checksum = etagOf(response.headers.get("x-linked-etag") ?? response.headers.get("etag"));
      }
      if (![301, 302, 303, 307, 308].includes(response.status)) {
        if (response.ok || response.status === RANGE_NOT_SATISFIABLE) return { response, commit, checksum };
        await response.body?.cancel();
        throw this.#refusal(url, response);
      }
      await response.body?.cancel();
      url = redirectTarget(url, response.headers.get("location"), this.#token);
    }
    throw new HubError(`${this.#endpoint.host} redirects more than ${MAX_REDIRECTS} times. Check HF_ENDPOINT`);
  }

  /** What the hub's own words are never needed for: they may repeat what they were sent. */
  #refusal({ host, origin }: URL, { status, headers }: Response): Error {
    const away = origin !== this.#endpoint.origin; // where addresses expire; the next attempt asks for a new one
    if (away || status === 408 || status === 429 || status >= 500) {
      return new Interruption(`${host} answers ${status}`, retryAfterSeconds(headers));
    }
    const code = headers.get("x-error-code");
    if (code === "GatedRepo") {
      return new HubError(`its terms must be accepted on ${host} first, and ${this.#tokenNote}`);
    }
    if (status === 401 || status === 403) {
      return new HubError(
        `it does not exist on ${host}, or is private, or asks you to accept its terms; ${this.#tokenNote}`,
      );
    }
    if (code === "RevisionNotFound") return new HubError(`${host} has no such revision of it. Check --revision`);
    if (status === 404) return new HubError(`there is no such model on ${host}. Check the name and the revision`);
    return new HubError(`${host} answers ${status}, which is no answer to this request. Check HF_ENDPOINT`);
  }
}

async function send(url: URL, headers: Record<string, string>, watchdog: Watchdog): Promise<Response> {
  watchdog.feed();
  try {
    return await fetch(url, { headers, redirect: "manual", signal: watchdog.signal });
  } catch (error) {
    throw watchdog.barked
      ? silence(url, watchdog)
      : new Interruption(`${url.host} cannot be reached${reasonIn(error)}`);
  }
}

async function* bodyOf(response: Response, watchdog: Watchdog): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const url = new URL(response.url);
  try {
    for await (const chunk of response.body ?? []) {
      watchdog.feed();
      yield chunk;
    }
  } catch {
    throw watchdog.barked ? silence(url, watchdog) : new Interruption(`the connection to ${url.host} broke`);
  }
}

function silence(url: URL, { seconds, late, mostSeconds }: Watchdog): Error {
  if (late) return new HubError(`${url.host} took more than ${mostSeconds} seconds. Try again later`);
  return new Interruption(`${url.host} sent nothing for ${seconds} seconds`);
}

/** `W/"abc"` -> `abc`. */
function etagOf(header: string | null): string | undefined {
  return header?.replace(/^W\//, "").replaceAll('"', "");
}

function retryAfterSeconds(headers: Headers): number | undefined {
  const text = headers.get("retry-after");
  if (text === null) return undefined;
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? undefined : Math.max(0, seconds);
}

/** Why a request failed, from Deno's message, which also holds the whole address: that may be a signed one. */
function reasonIn(error: unknown): string {
  const { cause } = error as Error, reason = /.*\): (.+)$/.exec(cause instanceof Error ? cause.message : "")?.[1];
  return reason && !reason.includes("://") ? ` (${reason})` : "";
}

/** Aborts a request when it was not fed for some seconds, or has taken too long altogether. */
class Watchdog {
  readonly #controller = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether it had to abort. */
  barked = false;

  readonly #deadline: ReturnType<typeof setTimeout> | undefined;
  /** Whether it had to because of the time altogether. */
  late = false;

  constructor(readonly seconds: number, readonly mostSeconds: number) {
    if (mostSeconds < Infinity) {
      this.#deadline = setTimeout(() => {
        this.late = true;
        this.#bark();
      }, mostSeconds * 1000);
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  feed(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#bark(), this.seconds * 1000);
  }

  #bark(): void {
    this.barked = true;
    this.#controller.abort();
  }

  abort(): void {
    this.#controller.abort();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#deadline);
    clearTimeout(this.#timer);
  }
}
