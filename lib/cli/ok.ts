/** `deno task ok`: the one gate. Format, lint, types, documentation, tests; stops at the first that fails. */

import { fileURLToPath } from "node:url";
import { run } from "./command.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

const command = {
  name: "ok",
  summary: "Checks format, lint, types and documentation, then runs the tests.",
  flags: {},
};

await run(command, async () => {
  await deno("fmt", "--check");
  await deno("lint");
  await deno("check", "lib/", "tests/");
  await lintDocumentation("lib/mod.ts", "lib/chart.ts", "lib/tensorflow/mod.ts", "lib/serve/server.ts");
  await deno("run", "-A", "lib/cli/run_tests.ts");
});

async function deno(...args: string[]): Promise<void> {
  const { success } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT }).spawn().status;
  if (!success) throw new Error(`\`deno ${args.join(" ")}\` failed.`);
}

/** `deno doc --lint`, less its complaint that the types of tfjs, which we do not export, are not ours to see. */
async function lintDocumentation(...files: string[]): Promise<void> {
  const args = ["doc", "--lint", ...files];
  const { stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT, env: { NO_COLOR: "1" } }).output();
  const problems = new TextDecoder().decode(stderr).split(/^(?=error\[)/m).filter((text) => text.startsWith("error["));
  const ours = problems.filter((text) =>
    !/^error\[private-type-ref\].* private type '(Tensor(\dD)?|Rank|node)'/.test(text)
  );
  for (const problem of ours) console.error(problem.trimEnd());
  if (ours.length) throw new Error(`\`deno doc --lint\` found ${ours.length} problems.`);
}
