/** What every command line of this project shares: flags, `--help`, and errors that are one line and exit code 2. */

import { isAbsolute, join } from "node:path";
import { format, parseArgs } from "node:util";
import { print } from "../util/print.ts";

/** One flag: its type, the placeholder and text of its line in `--help`. */
export interface Flag {
  type: "string" | "boolean";
  multiple?: boolean;
  /** What stands after the name in `--help`, e.g. `FILE`. */
  value?: string;
  help: string;
}

/** Parsed flags by name; a flag that was not given is undefined. */
export type Flags<F extends Record<string, Flag>> = {
  [K in keyof F]?: F[K] extends { type: "boolean" } ? boolean : F[K] extends { multiple: true } ? string[] : string;
};

/** One command: how it is called, what it does, and its flags. */
export interface Command<F extends Record<string, Flag>> {
  name: string;
  /** One sentence. */
  summary: string;
  /** Names of the words it takes besides flags, for `--help`, e.g. `[NAME…]`. Without it, words are refused. */
  words?: string;
  flags: F;
}

/** What the user asked for cannot be done as asked: printed as one line, exit code 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/**
 * Parses the command line and runs `main`. Errors end the process with one line on stderr: code 2 for what the user
 * can fix by asking differently or by another file ({@link UsageError}, RangeError, TypeError), code 1 for the rest.
 */
export async function run<F extends Record<string, Flag>>(
  command: Command<F>,
  main: (flags: Flags<F>, words: string[]) => Promise<void>,
): Promise<void> {
  console.log = (...values) => print(`${format(...values)}\n`); // Deno's own give up where a pipe would block
  console.error = (...values) => {
    try {
      print(`${format(...values)}\n`, Deno.stderr);
    } catch { /* such as a full disk: there is no place left to tell of it */ }
  };
  try {
    const { values, positionals } = parse(command);
    if (values.help) return console.log(help(command));
    await main(values as Flags<F>, positionals);
  } catch (error) {
    console.error(`${command.name}: ${oneLine(error instanceof Error ? error.message : String(error))}`);
    if (Deno.env.get("OMNIBUS_DEBUG")) console.error(error);
    const fixable = error instanceof UsageError || error instanceof RangeError || error instanceof TypeError;
    Deno.exit(fixable ? 2 : 1);
  }
}

/** A whole number ≥ `min` from a flag's text, or `fallback` when the flag was not given. Throws {@link UsageError}. */
export function wholeNumber(text: string | undefined, name: string, fallback: number, min = 1): number {
  if (text === undefined) return fallback;
  const value = Number(text);
  if (text.trim() === "" || !Number.isSafeInteger(value) || value < min) {
    throw new UsageError(`--${name} must be a whole number from ${min} up: it is "${text}".`);
  }
  return value;
}

/** The number in a flag's text; undefined when the flag was not given. Throws {@link UsageError}. */
export function number(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() === "" || Number.isNaN(value)) throw new UsageError(`--${name} must be a number: it is "${text}".`);
  return value;
}

/** A path that the user gave: relative to where they are, which is not always where Deno runs the task. */
export function userPath(path: string): string {
  return isAbsolute(path) ? path : join(Deno.env.get("INIT_CWD") ?? Deno.cwd(), path);
}

/** A message may quote a stranger's file: no line breaks, and nothing that a terminal would obey. */
function oneLine(message: string): string {
  return message.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, " ");
}

function parse<F extends Record<string, Flag>>(command: Command<F>) {
  const options = Object.fromEntries(
    Object.entries(command.flags).map(([name, { type, multiple }]) => [name, { type, multiple: multiple ?? false }]),
  );
  try {
    return parseArgs({
      args: Deno.args,
      options: { ...options, help: { type: "boolean", short: "h" } },
      allowPositionals: command.words !== undefined,
    });
  } catch (error) {
    const reason = (error as Error).message.split(/[.\n]/)[0],
      flag = reason.match(/'(--\S+)' argument is ambiguous/)?.[1];
    throw new UsageError(
      flag
        ? `${flag} needs a value. One that begins with a dash goes after an equals sign: ${flag}="-5 degrees".`
        : `${reason}. See \`deno task ${command.name} --help\`.`,
    );
  }
}

function help<F extends Record<string, Flag>>({ name, summary, words, flags }: Command<F>): string {
  const rows = Object.entries({ ...flags, help: { type: "boolean", help: "print this" } as Flag })
    .map(([flag, { value, help }]) => [`--${flag}${value ? ` ${value}` : ""}`, help]);
  const width = Math.max(...rows.map(([left]) => left.length));
  return [
    `Usage: deno task ${name} [FLAGS]${words ? ` ${words}` : ""}`,
    "",
    summary,
    "",
    ...rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`),
  ].join("\n");
}
