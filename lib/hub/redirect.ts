/** Where a redirect may lead. */

import { HubError } from "./error.ts";

/** Shorter ones are no secrets, and occur in addresses by chance. */
const MIN_SECRET_LENGTH = 8;

/**
 * Reads the `Location` that an answer from `from` carries. Throws a {@link HubError} for what leaves https, brings a
 * password or the token along, or is no web address at all.
 */
export function redirectTarget(from: URL, location: string | null, token = ""): URL {
  const to = location === null ? null : URL.parse(location, from.href);
  const schemes = from.protocol === "https:" ? ["https:"] : ["http:", "https:"];
  const hasPassword = to && (to.username || to.password), hasToken = to && isIn(to, token);
  if (to && schemes.includes(to.protocol) && !hasPassword && !hasToken) return to;
  const problem = !to
    ? "to no address"
    : hasPassword
    ? "with a password"
    : hasToken
    ? "to an address that has the token in it"
    : `from ${from.protocol} to ${to.protocol.slice(0, 20)}`;
  throw new HubError(`${from.host} redirects ${problem}, which is not followed. Check HF_ENDPOINT`);
}

/** Whether a secret is anywhere in an address: escaped perhaps, or in the host, which has no capitals. */
function isIn({ href }: URL, secret: string): boolean {
  if (secret.length < MIN_SECRET_LENGTH) return false;
  const plain = href.replace(/%([0-9a-f]{2})/gi, (_, code) => String.fromCharCode(parseInt(code, 16)));
  return plain.toLowerCase().includes(secret.toLowerCase());
}
