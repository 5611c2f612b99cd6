/** Files are replaced whole; what is no file is written through, and links are followed. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkWritable, writeFile, writeTextFile } from "../lib/util/files.ts";

const posix = Deno.build.os !== "windows";

async function folder() {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

const names = (path: string) => [...Deno.readDirSync(path)].map(({ name }) => name).sort();

Deno.test({
  name: "a link is followed to the file it leads to, there or not, and stays a link",
  ignore: !posix, // where links need a privilege
  async fn() {
    await using place = await folder();
    const at = (name: string) => join(place.path, name);
    await Deno.mkdir(at("far"));
    await Deno.writeTextFile(at("far/old"), "old");
    for (const [link, to, file] of [["a", "far/old", "far/old"], ["b", "far/new", "far/new"], ["c", "b", "far/new"]]) {
      await Deno.symlink(to, at(link));
      await writeTextFile(at(link), link);
      assert.ok((await Deno.lstat(at(link))).isSymlink);
      assert.equal(await Deno.readTextFile(at(file)), link);
    }
    assert.deepEqual([names(place.path), names(at("far"))], [["a", "b", "c", "far"], ["new", "old"]]);
    await Deno.symlink("circle", at("circle"));
    await assert.rejects(writeTextFile(at("circle"), ""));
  },
});

Deno.test({
  name: "a device and a pipe are written to, and stay what they are",
  ignore: !posix,
  async fn() {
    await using place = await folder();
    const link = join(place.path, "null"), pipe = join(place.path, "pipe");
    await Deno.symlink("/dev/null", link); // if the mistake came back, the link would be lost, and no device of the machine
    await writeTextFile(link, "gone");
    assert.ok((await Deno.lstat(link)).isSymlink && (await Deno.stat(link)).isCharDevice);

    await new Deno.Command("mkfifo", { args: [pipe] }).output();
    await checkWritable(pipe); // does not wait for a reader
    const text = "x".repeat(300_000); // more than a pipe holds
    const [read] = await Promise.all([Deno.readTextFile(pipe), writeTextFile(pipe, text)]);
    assert.equal(read, text);
    assert.ok((await Deno.lstat(pipe)).isFifo);
    assert.deepEqual(names(place.path), ["null", "pipe"]);
  },
});

Deno.test({
  name: "what goes to standard output by a name of it comes in order, whether that is a pipe or a file",
  ignore: !posix,
  async fn() {
    await using place = await folder();
    const output = join(place.path, "output"), program = join(place.path, "program.ts");
    const files = JSON.stringify(import.meta.resolve("../lib/util/files.ts"));
    await Deno.writeTextFile(
      program,
      `import { writeTextFile } from ${files}; console.log(1); await writeTextFile(Deno.args[0], "2\\n"); console.log(3);`,
    );
    const root = fileURLToPath(new URL("..", import.meta.url));
    const run = async (path: string, redirection: string) => {
      const args = ["-c", `"$0" run -A "$1" "$2" ${redirection}`, Deno.execPath(), program, path];
      const { stdout, stderr } = await new Deno.Command("/bin/sh", { args, cwd: root }).output();
      return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    };
    const [stdout, stderr] = ["1", "2"].map((n) => join(place.path, n));
    await Deno.symlink("/dev/fd/1", stdout); // if the mistake came back, these would be lost, and not the machine's own
    await Deno.symlink("/dev/fd/2", stderr);
    for (const path of [stdout, "/dev/fd/1"]) assert.equal(await run(path, ""), "1\n2\n3\n");
    assert.equal(await run(stderr, "2>&1 >/dev/null"), "2\n");
    for (const path of [stdout, output]) {
      assert.equal(await run(path, `>"${output}"`), "");
      assert.equal(await Deno.readTextFile(output), "1\n2\n3\n", path);
      await Deno.remove(output);
    }
  },
});

Deno.test({
  name: "a file that is replaced keeps its mode, and a new one has the one that the umask leaves",
  ignore: !posix,
  async fn() {
    await using place = await folder();
    const path = join(place.path, "file"), mode = async () => (await Deno.stat(path)).mode! & 0o777;
    await writeTextFile(path, "new");
    assert.equal(await mode(), 0o666 & ~Deno.umask());
    await Deno.chmod(path, 0o600);
    await writeTextFile(path, "again");
    assert.deepEqual([await mode(), await Deno.readTextFile(path)], [0o600, "again"]);
  },
});

Deno.test("a file stays as it was when writing fails, and nothing else is left", async () => {
  await using place = await folder();
  const path = join(place.path, "file");
  await writeTextFile(path, "old");
  const half = writeFile(path, async (file) => {
    await file.write(new Uint8Array(10));
    throw new Error("half");
  });
  await assert.rejects(half, /half/);
  assert.deepEqual([names(place.path), await Deno.readTextFile(path)], [["file"], "old"]);
});

Deno.test("checkWritable() fails where writing would, changes nothing, and makes the folder", async () => {
  await using place = await folder();
  const at = (name: string) => join(place.path, name);
  await writeTextFile(at("file"), "old");
  for (const path of [at("file/below"), place.path]) {
    await assert.rejects(checkWritable(path));
    await assert.rejects(writeTextFile(path, "new"));
  }
  await checkWritable(at("file"));
  await checkWritable(at("new/file"));
  assert.deepEqual([names(place.path), names(at("new"))], [["file", "new"], []]);
  assert.equal(await Deno.readTextFile(at("file")), "old");
});
