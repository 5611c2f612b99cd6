/** The page: the engine's steps as a bus, and the buttons that send passengers. */

import { Bus } from "./bus.js";
import { passengers, sendContinuously, sendInBatches } from "./crowd.js";
import { drawSeats } from "./seats_chart.js";
import { complete, completeAll, Refused, timeline, useKey } from "./server.js";

const element = (id) => document.getElementById(id);
const say = (text) => element("status").textContent = text;

let record; //          steps, while a comparison runs
let seats = 0; //       the engine's
let steps = []; //      those of the last two seconds
const ended = []; //    the last passengers' times
let sent = 0; //        passengers of this page: the seed of the next ones

/** Follows the engine for as long as the page is open. */
async function follow() {
  for (;;) {
    try {
      for await (const { engine, step } of timeline()) {
        if (engine) begin(engine);
        else show(step);
      }
      say("The server has closed the connection.");
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        element("key-form").hidden = false;
        return say("This server asks for a key.");
      }
      say(error instanceof Refused ? error.message : "The server cannot be reached.");
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

let bus;
function begin({ model, limits }) {
  seats = limits.maxBatch;
  bus = new Bus(element("bus"), seats);
  element("model").textContent = model;
  element("seats-count").textContent = seats;
  element("limit").max = seats;
  say("Connected.");
}

let latest, drawn = false;
/** Steps may come faster than the screen: what is drawn is the latest. */
function show(step) {
  record?.push(step);
  steps.push(step);
  latest = step;
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => {
    drawn = false;
    bus.show(latest);
    const { waiting } = latest;
    element("queue").textContent = waiting
      ? `${waiting} wait${waiting === 1 ? "s" : ""} at the stop.`
      : "Nobody waits.";
  });
}

/** Figures of the last two seconds, a few times a second: more often nobody can read them. */
setInterval(() => {
  const now = latest ? latest.startMs + latest.runMs : 0;
  steps = steps.filter(({ startMs }) => startMs > now - 2000);
  const span = steps.length ? (now - steps[0].startMs) / 1000 : 0;
  const tokens = steps.flatMap(({ rows }) => rows).filter(({ answered }) => answered).length;
  element("throughput").textContent = span > 0 ? Math.round(tokens / span) : "–";
  element("decoding").textContent = latest?.rows.length ?? "–";
  element("step-time").textContent = milliseconds(median(steps.map(({ runMs }) => runMs)));
  element("ttft").textContent = milliseconds(median(ended.map(({ ttft }) => ttft)));
  element("tpot").textContent = milliseconds(median(ended.flatMap(({ tpot }) => tpot ?? [])));
}, 300);

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

function milliseconds(value) {
  return value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

function note(times) {
  ended.push(times);
  if (ended.length > 64) ended.shift();
}

/** Has a button do one thing at a time, and says what went wrong. */
function onPress(button, work) {
  return async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      say(error.message);
    } finally {
      button.disabled = false;
    }
  };
}

const nextPassengers = (count) => passengers(count, sent += count);
const burstSize = () => Number(element("burst-size").value), limit = () => Number(element("limit").value);

element("ride").onsubmit = onPress(element("ride").querySelector("button"), async () => {
  const answer = element("answer"), prompt = element("prompt").value;
  const max_tokens = Number(element("max-tokens").value), temperature = Number(element("temperature").value);
  answer.textContent = prompt;
  await complete({ prompt, max_tokens, temperature }, (text) => answer.textContent += text);
  say("You have arrived.");
});

element("burst").onclick = onPress(element("burst"), async () => {
  const bodies = nextPassengers(burstSize());
  say(`${bodies.length} passengers are on their way.`);
  await completeAll(bodies, bodies.length, note);
  say(`All ${bodies.length} passengers have arrived.`);
});

element("compare").onclick = onPress(element("compare"), async () => {
  const bodies = nextPassengers(burstSize()), ways = { static: sendInBatches, continuous: sendContinuously };
  const runs = {};
  for (const [name, send] of Object.entries(ways)) {
    say(`${name === "static" ? "Static batches are" : "Continuous batching is"} under way.`);
    record = [];
    try {
      await send(bodies, limit(), note);
      await new Promise((resolve) => setTimeout(resolve, 100)); // the last step may come after the last token
      runs[name] = record;
    } finally {
      record = undefined;
    }
  }
  const lengths = Object.values(runs).map((steps) => steps.at(-1).startMs + steps.at(-1).runMs - steps[0].startMs);
  const seconds = Object.entries(runs).map(([name, steps]) =>
    drawSeats(element(name), name === "static" ? "Static" : "Continuous", steps, {
      seats: limit(),
      endMs: steps[0].startMs + Math.max(...lengths),
    }).seconds
  );
  say(
    `The same ${bodies.length} passengers: continuous batching takes ${
      (seconds[0] / seconds[1]).toFixed(1)
    }x less time.`,
  );
});

/** A browser has six connections to a server, of which the timeline takes one. */
const MOST_ARRIVALS = 4;

let riding = 0;
/** Passengers that come by themselves, at random times (a Poisson process). */
async function arrivals() {
  for (;;) {
    const rate = Number(element("rate").value), pause = rate ? -Math.log(1 - Math.random()) / rate : 0.2;
    await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
    if (!rate || riding >= MOST_ARRIVALS) continue;
    riding++;
    completeAll(nextPassengers(1), 1, note).catch((error) => say(error.message)).finally(() => riding--);
  }
}

for (const [slider, value] of [["burst-size", "burst-value"], ["rate", "rate-value"], ["limit", "limit-value"]]) {
  element(slider).oninput = () => element(value).textContent = element(slider).value;
}
element("key-form").onsubmit = (event) => {
  event.preventDefault();
  useKey(element("key").value);
  element("key-form").hidden = true;
  follow();
};
follow();
arrivals();
