/** JSON as people's editors save it. */

/** What a text says. A byte order mark before it, which some editors write, is no part of it. Throws a SyntaxError. */
// deno-lint-ignore no-explicit-any -- as JSON.parse
export function parseJson(text: string): any {
  return JSON.parse(text.replace(/^\uFEFF/, ""));
}
