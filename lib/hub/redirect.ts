/** Where a redirect may lead. */

import { HubError } from "./error.ts";

/**
 * Reads the `Location` that an answer from `from` carries. Throws a {@link HubError} for what leaves https, brings a
 * password along, or is no web address at all.
 */
export function redirectTarget(from: URL, location: string | null): URL {
  const to = location === null ? null : URL.parse(location, from.href);
  const schemes = from.protocol === "https:" ? ["https:"] : ["http:", "https:"];
  if (to && schemes.includes(to.protocol) && !to.username && !to.password) return to;
  const problem = !to
    ? "to no address"
    : to.username || to.password
    ? "with a password"
    : `from ${from.protocol} to ${to.protocol.slice(0, 20)}`;
  throw new HubError(`${from.host} redirects ${problem}, which is not followed. Check HF_ENDPOINT`);
}
