/** Where the hub and its cache are: the variables that Hugging Face's own programs read. */

import { join, resolve } from "node:path";

/** How to reach the hub. */
export interface HubSettings {
  /** Its address: HF_ENDPOINT. */
  readonly endpoint: URL;
  /** HF_TOKEN, or what a log-in left under HF_HOME. */
  readonly token?: string;
  /** The folder of the `models--owner--name` that other programs downloaded: HF_HUB_CACHE, or under HF_HOME. */
  readonly cache: string;
  /** HF_HUB_OFFLINE: send no request. */
  readonly offline: boolean;
}

/** Reads the settings. Throws a RangeError, without a password or token in it, for one that cannot be used. */
export async function hubSettings(environment: Record<string, string> = Deno.env.toObject()): Promise<HubSettings> {
  const { HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HUB_OFFLINE } = environment;
  const home = homeFolder(environment);
  return {
    endpoint: endpointUrl(HF_ENDPOINT || "https://huggingface.co"),
    token: tokenFrom("HF_TOKEN", HF_TOKEN) ?? await tokenInFile(environment.HF_TOKEN_PATH || join(home, "token")),
    cache: resolve(HF_HUB_CACHE || join(home, "hub")),
    offline: /^(1|true|yes|on)$/i.test(HF_HUB_OFFLINE ?? ""),
  };
}

function homeFolder({ HF_HOME, XDG_CACHE_HOME, HOME, USERPROFILE }: Record<string, string>): string {
  return HF_HOME || join(XDG_CACHE_HOME || join(HOME || USERPROFILE || ".", ".cache"), "huggingface");
}

function endpointUrl(text: string): URL {
  const url = URL.parse(text);
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw new RangeError(
      "HF_ENDPOINT is not the address of a hub: use https://HOST or http://HOST, without user name, password or query.",
    );
  }
  return url;
}

async function tokenInFile(path: string): Promise<string | undefined> {
  return tokenFrom(path, await Deno.readTextFile(path).catch(() => undefined));
}

/** Checked here because what refuses a bad header would print it. */
function tokenFrom(source: string, text = ""): string | undefined {
  const token = text.trim();
  if (/[^\x21-\x7e]/.test(token)) {
    throw new RangeError(
      `The token in ${source} has spaces or characters that no token has. Copy it again, or unset it.`,
    );
  }
  return token || undefined;
}
