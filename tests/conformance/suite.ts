/** Runs the tests that tfjs publishes on our binding, and counts. */

import jasmineRequire from "jasmine-core";
import type { TensorflowBinding } from "../../lib/tensorflow/capi/binding.ts";
import { publishedTests } from "./bundle.ts";
import { IGNORED, ignoredByTfjsNode } from "./ignored.ts";
import { writeTestModels } from "./models.ts";

/** Who wrote the specs. */
export type Author = "tfjs-core" | "tfjs-node";

/** How the specs of one author went. */
export interface Counts {
  specs: number;
  passed: number;
  failed: number;
  /** Left out by tfjs-node's list. */
  ignoredByTfjsNode: number;
  /** Left out by ours. */
  ignoredByUs: number;
  /** Marked by their authors as not to be run here: other environments, or disabled. */
  pending: number;
}

/** Everything that a run found out. */
export interface Results {
  counts: Record<Author, Counts>;
  failures: { spec: string; message: string }[];
  /** Entries of our list that no spec has. */
  unknownIgnored: string[];
}

/** What we use of Jasmine's descriptions. */
interface Spec {
  id: string;
  getFullName(): string;
}

/** Runs all specs on `binding`, or those with `filter` in their names; with `all`, those that tfjs-node ignores, too. */
export async function runPublishedTests(
  binding: TensorflowBinding,
  { filter = "", all = false }: { filter?: string; all?: boolean } = {},
): Promise<Results> {
  const jasmine = jasmineRequire.boot(jasmineRequire), env = jasmine.getEnv();
  const folder = await Deno.makeTempDir({ prefix: "conformance-" }), home = Deno.cwd(), { warn, log } = console;
  try {
    console.warn = console.log = () => {}; // some specs print
    const { loadCore, loadNode } = await publishedTests(folder, binding);
    await writeTestModels(folder);
    Deno.chdir(folder); // tfjs-node's tests look there for the models
    await loadCore();
    const fromCore = new Set(specsOf(env.topSuite()).map(({ id }) => id));
    await loadNode();
    const specs = specsOf(env.topSuite()), names = new Set(specs.map((spec) => spec.getFullName()));
    const report = new Report(fromCore);
    const theirs = all ? [] : ignoredByTfjsNode();
    env.clearReporters();
    env.addReporter(report);
    env.configure({
      random: false,
      specFilter(spec: Spec) {
        const name = spec.getFullName();
        if (!name.includes(filter)) return report.skip(spec);
        if (name in IGNORED) return report.skip(spec, "ignoredByUs");
        if (theirs.some((part) => name.includes(part))) return report.skip(spec, "ignoredByTfjsNode");
        return true;
      },
    });
    await env.execute();
    const unknownIgnored = Object.keys(IGNORED).filter((name) => !names.has(name));
    return { counts: report.counts, failures: report.failures, unknownIgnored };
  } finally {
    Object.assign(console, { warn, log });
    Deno.chdir(home);
    await Deno.remove(folder, { recursive: true });
  }
}

/** Collects what Jasmine reports. */
class Report {
  readonly counts: Record<Author, Counts> = { "tfjs-core": noCounts(), "tfjs-node": noCounts() };
  readonly failures: Results["failures"] = [];
  readonly #skipped = new Map<string, "ignoredByUs" | "ignoredByTfjsNode" | undefined>();

  constructor(private readonly fromCore: ReadonlySet<string>) {}

  /** Notes why a spec is not run; a filter's answer. */
  skip({ id }: Spec, reason?: "ignoredByUs" | "ignoredByTfjsNode"): false {
    this.#skipped.set(id, reason);
    return false;
  }

  specDone({ id, fullName, status, failedExpectations }: {
    id: string;
    fullName: string;
    status: string;
    failedExpectations: { message: string }[];
  }): void {
    const counts = this.counts[this.fromCore.has(id) ? "tfjs-core" : "tfjs-node"], skipped = this.#skipped.has(id);
    const reason = this.#skipped.get(id);
    if (skipped && !reason) return; // not asked for
    counts.specs++;
    if (reason) counts[reason]++;
    else if (status === "passed") counts.passed++;
    else if (status === "failed") {
      counts.failed++;
      this.failures.push({ spec: fullName, message: failedExpectations[0]?.message ?? "" });
    } else counts.pending++;
  }
}

function noCounts(): Counts {
  return { specs: 0, passed: 0, failed: 0, ignoredByTfjsNode: 0, ignoredByUs: 0, pending: 0 };
}

// deno-lint-ignore no-explicit-any -- Jasmine brings no types
function specsOf(suite: any): Spec[] {
  return suite.children.flatMap((child: { children?: unknown }) => child.children ? specsOf(child) : [child]);
}
