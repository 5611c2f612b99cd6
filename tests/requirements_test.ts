import assert from "node:assert/strict";

for (const [folder, least] of [[".", 60], ["lib/site", 60], ["lib/batch/ray", 20]] as const) {
  Deno.test(`what Python gets by ${folder}/requirements.in is pinned by version and hash, down to the last package`, async () => {
    const read = (name: string) => Deno.readTextFile(`${folder}/${name}`);
    const wanted = (await read("requirements.in")).trim().split("\n");
    const text = (await read("requirements.txt")).replaceAll(/^#.*\n/gm, "").replaceAll("\\\n", "");
    const lines = text.trim().split("\n");
    for (const line of lines) {
      assert.match(line, /^[\w.-]+==[\w.]+( ; [\w<>=!.* '"()-]+)?( +--hash=sha256:[0-9a-f]{64})+$/);
    }
    const pins = lines.map((line) => line.split(" ")[0]);
    for (const pin of wanted) {
      const name = pin.replace(/\[.*\]/, ""); // extras are among the packages
      assert.ok(pins.includes(name), `${pin} is not in requirements.txt: run lib/jupyter/pin.py`);
    }
    assert.ok(pins.length > least, "and all that they need");
  });
}

Deno.test("where the user does not choose it, Deno's version is pinned", async () => {
  for (const path of [".ci/run", ".devcontainer/Dockerfile"]) {
    assert.match(await Deno.readTextFile(path), /\bdeno@\d+\.\d+\.\d+\b/, path);
  }
});
