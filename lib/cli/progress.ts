/** A progress line on stderr: a bar with time left on a terminal, a line per tenth elsewhere. */

/** Reports how far some work is. `update` may be called as often as one likes. */
export class Progress {
  readonly #started = performance.now();
  #lastTenth = 0;
  #drawn = false;

  /** @param label what is being done @param total the work in any unit @param format how to print an amount of it */
  constructor(readonly label: string, readonly total: number, readonly format: (amount: number) => string = String) {}

  /** Shows that `done` of the total is done. */
  update(done: number, note = ""): void {
    const share = Math.min(1, done / this.total);
    const line = `${this.label}  ${this.format(done)} of ${this.format(this.total)}${note && `  ${note}`}`;
    if (Deno.stderr.isTerminal()) {
      const bar = "█".repeat(Math.round(share * 24)).padEnd(24, "░");
      this.#draw(`\r\x1b[2K${bar} ${line}${share < 1 ? this.#timeLeft(share) : ""}`);
    } else if (Math.floor(share * 10) > this.#lastTenth) {
      this.#lastTenth = Math.floor(share * 10);
      console.error(`${line}${share < 1 ? this.#timeLeft(share) : ""}`);
    }
  }

  /** Removes the bar, so that what is printed next stands alone. */
  [Symbol.dispose](): void {
    if (this.#drawn) this.#draw("\r\x1b[2K");
  }

  #draw(text: string): void {
    this.#drawn = true;
    Deno.stderr.writeSync(new TextEncoder().encode(text));
  }

  #timeLeft(share: number): string {
    const elapsed = (performance.now() - this.#started) / 1000;
    return share > 0 && elapsed > 1 ? `  ${formatSeconds(elapsed / share - elapsed)} left` : "";
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
