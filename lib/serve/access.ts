/** Who may ask: keys, and pages of other sites. */

import { createHash, timingSafeEqual } from "node:crypto";
import { ApiError } from "../openai/error.ts";

/** Who may ask a server. */
export interface Access {
  /** Each opens the server. None: it is open. */
  keys: readonly string[];
  /** Sites whose pages may ask, besides the server's own: `https://example.org`, or `*` for all. */
  origins: readonly string[];
  /** Whether the server listens on this machine only. */
  loopback: boolean;
}

/** Throws a RangeError about an origin that no browser would send. */
export function checkOrigins(origins: readonly string[]): void {
  for (const origin of origins) {
    const written = URL.canParse(origin) ? new URL(origin).origin : "https://example.org";
    if (origin === "*" || origin === written) continue;
    throw new RangeError(`Cannot allow the origin "${origin}": write it as browsers do, such as ${written}, or *.`);
  }
}

const digest = (text: string) => createHash("sha256").update(text).digest();

/** Throws an {@link ApiError} of status 401 unless a request has one of the keys. Takes as long for any wrong one. */
export function checkKey({ headers }: Request, { keys }: Access): void {
  if (keys.length === 0) return;
  const [, given = ""] = headers.get("authorization")?.match(/^Bearer\s+(.+)$/i) ?? [], own = digest(given);
  const matching = keys.filter((key) => timingSafeEqual(digest(key), own)); // each is compared, found or not
  if (matching.length) return;
  const message = headers.has("authorization") ? "The API key is wrong." : "There is no API key.";
  throw new ApiError(401, `${message} Send it as "Authorization: Bearer KEY".`, { code: "invalid_api_key" });
}

/**
 * Throws an {@link ApiError} of status 403 for a page of another site. Browsers send simple requests without asking first, so
 * that a page could keep the server busy even if it cannot read the answers. A name that somebody else's DNS gives to
 * this machine is another site, too.
 */
export function checkOrigin({ headers, url }: Request, { origins, loopback }: Access): void {
  const host = headers.get("host") ?? new URL(url).host, origin = headers.get("origin");
  const ours = !loopback || /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/i.test(host);
  if (ours && (origin === null || origin === `http://${host}` || origin === `https://${host}`)) return;
  if (ours && origin !== null && (origins.includes(origin) || origins.includes("*"))) return;
  throw new ApiError(403, "Pages of other sites may not ask this server. Allow them with --allow-origin.", {
    code: "cross_origin",
  });
}
