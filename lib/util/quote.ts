/** Names from elsewhere in messages. */

/** A name for a message: quoted, control characters escaped, shortened. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name);
}
