import assert from "node:assert/strict";

for (const [who, folder, least] of [["notebooks'", ".", 60], ["batches' Ray's", "lib/batch/ray", 20]] as const) {
  Deno.test(`what the ${who} Python gets is pinned by version and hash, down to the last package`, async () => {
    const wanted = (await Deno.readTextFile(`${folder}/requirements.in`)).trim().split("\n");
    const pinned = await Deno.readTextFile(`${folder}/requirements.txt`);
    const lines = pinned.replaceAll(/^#.*\n/gm, "").replaceAll("\\\n", "").trim().split("\n");
    for (const line of lines) {
      assert.match(line, /^[\w.-]+==[\w.]+( ; [\w<>=!.* '"()-]+)?( +--hash=sha256:[0-9a-f]{64})+$/);
    }
    const pins = lines.map((line) => line.split(" ")[0]);
    for (const pin of wanted) {
      const name = pin.replace(/\[.*\]/, "");
      assert.ok(pins.includes(name), `${pin} is not in requirements.txt: run lib/jupyter/pin.py`);
    }
    assert.ok(pins.length >= least, "and all that they need");
  });
}

Deno.test("where the user does not choose it, Deno's version is pinned", async () => {
  for (const path of [".ci/run", ".devcontainer/Dockerfile"]) {
    assert.match(await Deno.readTextFile(path), /\bdeno@\d+\.\d+\.\d+\b/, path);
  }
});
