import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const project = fileURLToPath(new URL("..", import.meta.url));

Deno.test("README's program runs, and is checked, in a project outside the clone that links to it", async () => {
  const readme = await Deno.readTextFile(join(project, "README.md"));
  const block = (language: string) => readme.match(new RegExp("```" + language + "\n([^]*?)```"))![1];
  const folder = await Deno.makeTempDir();
  const write = (name: string, text: string) => Deno.writeTextFile(join(folder, name), text);
  await write("deno.json", block("json").replace('"../omnibus"', JSON.stringify(project)));
  await write(
    "main.ts",
    block("ts").replace("./lib/mod.ts", "@omnibus/omnibus").replaceAll('"models/small"', "Deno.args[0]") +
      'import { throughputChart } from "@omnibus/omnibus/chart";\nconsole.log(typeof throughputChart);\n',
  );
  const deno = async (...args: string[]) => {
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: folder }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout);
  };
  await deno("check", "main.ts");
  const lines = (await deno("run", "-A", "main.ts", join(project, "models/small"))).trimEnd().split("\n");
  assert.match(lines[0], /^The quick brown fox jumped over the \w/);
  assert.equal(lines.at(-1), "function");
  await Deno.remove(folder, { recursive: true });
});
