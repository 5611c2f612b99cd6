/** The seats and who sits in them. */

/** Draws the bus into `list`, a list element. */
export class Bus {
  #seats = [];
  #tokens = new Map(); // of each request so far

  constructor(list, seats) {
    this.#seats = Array.from({ length: seats }, () => {
      const seat = document.createElement("li");
      seat.className = "seat";
      return seat;
    });
    list.replaceChildren(...this.#seats);
    this.show({ rows: [], events: [] });
  }

  /** Shows a step. Rows that left with it are gone in the next one. */
  show({ rows, events }) {
    const taken = new Map(rows.map((row) => [row.seat, row]));
    for (const { request, phase, tokens } of rows) {
      if (phase === "decode") this.#tokens.set(request, (this.#tokens.get(request) ?? 0) + tokens);
    }
    for (const { request, what } of events) if (what !== "admitted") this.#tokens.delete(request);
    this.#seats.forEach((seat, i) => {
      const row = taken.get(i), kind = row?.phase ?? "empty";
      const text = row
        ? `#${row.request}\n${kind === "prefill" ? `reads ${row.tokens}` : this.#tokens.get(row.request) ?? 1}`
        : "";
      seat.className = `seat ${kind}`;
      if (seat.textContent !== text) seat.textContent = text;
    });
  }
}
