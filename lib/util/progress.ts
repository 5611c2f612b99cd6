/** A progress line on stderr: a bar with time left on a terminal, a line per tenth elsewhere. */

import { print } from "./print.ts";

/** Reports how far some work is. `update` may be called as often as one likes. */
export class Progress {
  readonly #started = performance.now();
  /** What was done before, such as the part of a download that is resumed. */
  #before: number | undefined;
  #lastTenth = 0;
  #drawnAt: number | undefined;

  /** @param label what is being done @param total the work in any unit @param format how to print an amount of it */
  constructor(readonly label: string, readonly total: number, readonly format: (amount: number) => string = String) {}

  /** Shows that `done` of the total is done. */
  update(done: number, note = ""): void {
    this.#before ??= done;
    const share = Math.min(1, done / this.total);
    const line = `${this.label}  ${this.format(done)} of ${this.format(this.total)}${note && `  ${note}`}`;
    if (Deno.stderr.isTerminal()) {
      if (share < 1 && performance.now() - (this.#drawnAt ?? -Infinity) < 50) return; // faster than anybody can read
      const bar = "█".repeat(Math.round(share * 24)).padEnd(24, "░");
      this.#draw(`\r\x1b[2K${bar} ${line}${share < 1 ? this.#timeLeft(done) : ""}`);
    } else if (Math.floor(share * 10) > this.#lastTenth) {
      this.#lastTenth = Math.floor(share * 10);
      console.error(`${line}${share < 1 ? this.#timeLeft(done) : ""}`);
    }
  }

  /** How fast it goes, for a note: `12.3 MB/s`; nothing while it is too early to tell. */
  rate(done: number): string {
    const perSecond = this.#perSecond(done);
    return perSecond > 0 ? `${this.format(perSecond)}/s` : "";
  }

  /** Removes the bar, so that what is printed next stands alone. */
  [Symbol.dispose](): void {
    if (this.#drawnAt !== undefined) this.#draw("\r\x1b[2K");
  }

  #draw(text: string): void {
    this.#drawnAt = performance.now();
    print(text, Deno.stderr);
  }

  #timeLeft(done: number): string {
    const perSecond = this.#perSecond(done);
    return perSecond > 0 ? `  ${formatSeconds((this.total - done) / perSecond)} left` : "";
  }

  /** The mean since the first update; 0 while it is too early to tell. */
  #perSecond(done: number): number {
    const elapsed = (performance.now() - this.#started) / 1000;
    return elapsed > 1 ? (done - (this.#before ?? done)) / elapsed : 0;
  }
}

/** What work has to say while {@link withProgress} runs it. */
export interface ProgressReport {
  /** Shows that `done` of `total` is done; the first call makes the bar. */
  update(done: number, total: number, note?: string): void;
  /** Prints a line for people to read, in place of the bar. */
  log(line: string): void;
}

/** How {@link withProgress} writes. */
export interface ProgressOptions {
  /** How to print an amount of the work. */
  format?: (amount: number) => string;
  /** Adds how fast it goes. */
  rate?: boolean;
}

/** Runs some work with a bar that appears when there is something to show, and is gone when the work ends in any way. */
export async function withProgress<T>(
  label: string,
  work: (report: ProgressReport) => Promise<T>,
  { format, rate = false }: ProgressOptions = {},
): Promise<T> {
  let bar: Progress | undefined;
  try {
    return await work({
      update(done, total, note) {
        bar ??= new Progress(label, total, format);
        bar.update(done, note ?? (rate ? bar.rate(done) : ""));
      },
      log(line) {
        bar?.[Symbol.dispose]();
        console.error(line);
      },
    });
  } finally {
    bar?.[Symbol.dispose]();
  }
}

/** `75` -> `1:15`; `9` -> `9 s`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** `274000871` -> `274 MB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const value = bytes / 1000 ** power;
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}
