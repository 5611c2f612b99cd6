/** Seats against time: who sat where, and what was done for them. */

const SVG = "http://www.w3.org/2000/svg", WIDTH = 480, SEAT = 10;

/** Draws recorded steps into a figure, whose caption says the result. */
export function drawSeats(figure, name, steps, { seats, endMs }) {
  const start = steps[0].startMs, scale = WIDTH / (endMs - start), svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${seats * SEAT}`);
  svg.setAttribute("role", "img");
  const places = [...new Set(steps.flatMap(({ rows }) => rows.map(({ seat }) => seat)))].sort((a, b) => a - b);
  let busy = 0, tokens = 0, last = start;
  for (const { rows, startMs, scheduleMs, runMs, collectMs } of steps) {
    const duration = scheduleMs + runMs + collectMs;
    last = startMs + duration;
    for (const { seat, phase, answered } of rows) {
      busy += duration;
      tokens += answered ? 1 : 0;
      const bar = document.createElementNS(SVG, "rect");
      const box = { x: (startMs - start) * scale, y: places.indexOf(seat) * SEAT + 1 };
      const size = { width: Math.max(0.5, duration * scale), height: SEAT - 2 };
      for (const [key, value] of Object.entries({ ...box, ...size })) bar.setAttribute(key, value.toFixed(2));
      bar.setAttribute("class", phase);
      svg.append(bar);
    }
  }
  const seconds = (last - start) / 1000, occupancy = busy / (last - start) / seats;
  const result = `${name}: ${seconds.toFixed(1)} s, ${Math.round(tokens / seconds)} tokens per second, ` +
    `${Math.round(100 * Math.min(1, occupancy))}% of ${seats} seats taken`;
  svg.setAttribute("aria-label", result);
  const caption = document.createElement("figcaption");
  caption.textContent = result;
  figure.replaceChildren(svg, caption);
  return { seconds };
}
