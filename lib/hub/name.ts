/** Which model a name means, at which revision, and which folder of `models/` it gets. */

import { fileURLToPath } from "node:url";
import { quote } from "../util/quote.ts";

/** The project's `models/`. */
export const MODELS_FOLDER: string = fileURLToPath(new URL("../../models", import.meta.url));

/** A model on the hub. */
export interface HubModel {
  /** `owner/name` on the hub. */
  readonly repository: string;
  /** A commit, a branch or a tag. */
  readonly revision: string;
  /** The one name of its folder in `models/`. */
  readonly folder: string;
}

/** The published sizes, each at the commit that this library is meant for. */
export const KNOWN_MODELS = {
  "distilgpt2": { repository: "distilbert/distilgpt2", revision: "2290a62682d06624634c1f46a6ad5be0f47f38aa" },
  "gpt2": { repository: "openai-community/gpt2", revision: "607a30d783dfa663caf39e06633721c8d4cfcd7e" },
  "gpt2-medium": { repository: "openai-community/gpt2-medium", revision: "6dcaa7a952f72f9298047fd5137cd6e4f05f41da" },
  "gpt2-large": { repository: "openai-community/gpt2-large", revision: "32b71b12589c2f8d625668d2335a01cac3249519" },
  "gpt2-xl": { repository: "openai-community/gpt2-xl", revision: "15ea56dee5df4983c59b2538573817e1667135e2" },
} as const;

/**
 * Reads a name: one of {@link KNOWN_MODELS}, or `owner/name`. Throws a RangeError for everything else, so that no name
 * can lead out of `models/` or to another address.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { hubModel } from "./name.ts";
 *
 * assert.equal(hubModel("gpt2").repository, "openai-community/gpt2");
 * assert.equal(hubModel("someone/tales").folder, "someone--tales");
 * assert.throws(() => hubModel("../tales"), RangeError);
 * ```
 */
export function hubModel(name: string, revision?: string): HubModel {
  const known = isKnownModel(name) ? KNOWN_MODELS[name] : undefined;
  if (!known && !isRepository(name)) {
    const names = Object.keys(KNOWN_MODELS).join(", ");
    throw new RangeError(`${quote(name)} is not the name of a model: use ${names}, or owner/name as on the hub.`);
  }
  if (revision !== undefined && !isRevision(revision)) {
    throw new RangeError(`${quote(revision)} is not a revision: use a commit, a branch or a tag.`);
  }
  return {
    repository: known?.repository ?? name,
    revision: revision ?? known?.revision ?? "main",
    folder: folderName(name),
  };
}

/** Whether a name is one of {@link KNOWN_MODELS}. */
export function isKnownModel(name: string): name is keyof typeof KNOWN_MODELS {
  return Object.hasOwn(KNOWN_MODELS, name);
}

/** `owner/name` -> `owner--name`: `models/` stays flat, and no model can lie inside another. The hub allows no `--`. */
export function folderName(name: string): string {
  return isRepository(name) ? name.replace("/", "--") : name;
}

/** Whether this is `owner/name`, by the hub's rules. */
export function isRepository(name: string): boolean {
  const parts = name.split("/");
  return parts.length === 2 && !/--|\.\.|\.git$/.test(name) &&
    parts.every((part) => /^[a-z\d_]([\w.-]{0,94}[a-z\d_])?$/i.test(part));
}

/** Whether this names a full commit, whose files never change. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

function isRevision(revision: string): boolean {
  return /^\w[\w./-]{0,199}$/.test(revision) && !/\.\.|\/\/|\/$/.test(revision);
}
