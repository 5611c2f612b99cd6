/**
 * Finding and installing libtensorflow and oneDNN, without a network: small wheels, and a pip that copies them. Every
 * installation is a process of its own, as two of them may meet and one may be killed.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { crc32, deflateRawSync } from "node:zlib";
import { lines } from "../lib/util/lines.ts";
import { unpack } from "../lib/install/unpack.ts";
import { SetupError, type Wheel } from "../lib/install/wheel.ts";
import { hasOnednn, wheelsFor as onednnWheelsFor } from "../lib/onednn/install.ts";
import { wheelsFor } from "../lib/tensorflow/install/wheels.ts";

const LIBRARIES = {
  linux: ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"],
  darwin: ["libtensorflow_cc.2.dylib", "libtensorflow_framework.2.dylib"],
  windows: ["tensorflow.dll"],
}[Deno.build.os as string]!;
const [MAIN] = LIBRARIES;
const WHEEL = "tensorflow_cpu-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl";
const INSTALLED = `libtensorflow-2.21.0-${Deno.build.os}-${Deno.build.arch}`;
const ONEDNN = `onednn-3.2.0-${Deno.build.os}-${Deno.build.arch}`;

Deno.test("installLibtensorflow() takes the libraries out of the wheel, deflated or stored, and nothing else", async () => {
  for (const method of [8, 0]) {
    await using place = await Place.make({ method });
    const run = start(place, "installLibtensorflow");
    const { found, events } = await run.end();
    assert.equal(found?.main, join(place.cache, INSTALLED, "tensorflow", MAIN));
    assert.equal(found?.source, "set-up");
    await place.assertInstalled();
    assert.deepEqual(namesIn(join(place.cache, INSTALLED, "tensorflow")), LIBRARIES);

    const progress = events.flatMap(({ done, total }) => done === undefined ? [] : [{ done, total }]);
    assert.ok(progress.every(({ done }, i) => i === 0 || done >= progress[i - 1].done), "progress never goes back");
    assert.equal(progress.at(-1)!.done, progress.at(-1)!.total);
    const [{ log }] = events.filter((event) => event.log);
    assert.ok(log!.includes(place.cache) && /downloads [\d.]+ [kM]B, takes 8\.\d MB/.test(log!), log!);
  }
});

Deno.test("what is installed is used at once, without pip and without a word", async () => {
  await using place = await Place.make();
  await start(place, "installLibtensorflow").end();
  for (const call of ["installLibtensorflow", "ensureLibtensorflow", "findLibtensorflow"]) {
    const { found, events } = await start(place, call, { pip: ["no-such-pip"] }).end();
    assert.equal(found?.source, "set-up");
    assert.deepEqual(events.filter(({ log }) => log), []);
  }
  assert.equal(place.pipRuns(), 1);
});

Deno.test("libraries go where the wheel's pin says, which is how one NVIDIA library is found by its user", async () => {
  await using place = await Place.make();
  const wheels = place.wheels.map((wheel) => ({ ...wheel, into: "tensorflow/deeper/lib" }));
  await start(place, "installLibtensorflow", { wheels }).end();
  assert.deepEqual(namesIn(join(place.cache, INSTALLED, "tensorflow/deeper/lib")), LIBRARIES);
});

Deno.test("a wheel that is not the pinned one is refused, and nothing stays", async () => {
  await using place = await Place.make();
  const [wheel] = place.wheels;
  for (const wrong of [{ sha256: "0".repeat(64) }, { bytes: wheel.bytes + 1 }]) {
    await assertRefused(place, new RegExp(`is not the file.*${wheel.sha256}`), { wheels: [{ ...wheel, ...wrong }] });
  }
});

Deno.test("a damaged wheel is refused, and nothing stays", async () => {
  await using place = await Place.make();
  const whole = await Deno.readFile(join(place.folder, WHEEL));
  const flipped = whole.slice();
  flipped.fill(0xff, 200, 400);
  for (const bytes of [whole.subarray(0, whole.length / 2), whole.subarray(0, 10), new Uint8Array(), flipped]) {
    await place.offer(bytes);
    await assertRefused(place, /is damaged/);
  }
});

Deno.test("a wheel without a library, or with one of another size, is refused, and nothing stays", async () => {
  await using place = await Place.make();
  const [wheel] = place.wheels;
  const { [`tensorflow/${MAIN}`]: size, ...others } = wheel.libraries;
  const missing = { ...others, "tensorflow/no_such_library": 1 };
  await assertRefused(place, /holds no tensorflow\/no_such_library/, { wheels: [{ ...wheel, libraries: missing }] });
  const larger = { ...others, [`tensorflow/${MAIN}`]: size + 1 };
  await assertRefused(place, new RegExp(`${size} bytes instead of`), { wheels: [{ ...wheel, libraries: larger }] });
});

Deno.test("when pip fails, its reason is passed on", async () => {
  await using place = await Place.make();
  const noMatch = "ERROR: No matching distribution found for tensorflow-cpu==2.21.0";
  for (
    const [says, reason] of [
      [`ERROR: first\n${noMatch}\n`, /tensorflow_cpu 2\.21\.0: No matching distribution found/],
      [`WARNING: Retrying after connection broken by 'Timeout()': /simple/\n${noMatch}\n`, /: Timeout\(\)\. Check/],
      ["ERROR: Exception:\nTraceback:\n  x\nValueError: odd\n", /: ValueError: odd\. Check/],
      ["\n", /: it ended with code 1\. Check/],
    ] as const
  ) {
    await place.tellPip("fail", says);
    await assertRefused(place, reason);
  }
});

Deno.test("without pip, the error says what to install or set", async () => {
  await using place = await Place.make();
  await assertRefused(
    place,
    /`python3 -m pip`.*Install Python with pip, or set LIBTENSORFLOW_DIR/,
    { pip: undefined },
    {
      PATH: place.folder,
    },
  );
});

Deno.test("a cache that cannot be written gives an error that names it", async () => {
  await using place = await Place.make();
  const { error } = await start(place, "installLibtensorflow", {}, { OMNIBUS_CACHE: join(place.folder, WHEEL) }).end();
  assert.equal(error?.name, "SetupError");
  assert.match(error!.message, /Cannot write into .*Set OMNIBUS_CACHE/);
});

Deno.test("a disk with too little room is refused before anything is downloaded", async () => {
  await using place = await Place.make();
  const wheels = place.wheels.map((wheel) => ({ ...wheel, bytes: 1e18 }));
  await assertRefused(
    place,
    /needs 2000000 TB in .*cache, and that disk has [\d.]+ [kMGT]B free\. .*OMNIBUS_CACHE/,
    {
      wheels,
    },
  );
  assert.equal(place.pipRuns(), 0);
});

Deno.test({
  name: "a disk that fills up while pip or unpacking writes gives the bytes needed and advice, and nothing stays",
  ignore: Deno.build.os !== "linux", // the others have no /dev/full
  async fn() {
    await using place = await Place.make();
    for (const [order, runs] of [["full library", 1], ["full download", 2]] as const) {
      await place.tellPip(order);
      await assertRefused(place, /needs [\d.]+ MB in .*cache, and that disk is full\. Make room, or set OMNIBUS_CACHE/);
      await place.tellPip(order, null);
      assert.equal(place.pipRuns(), runs);
    }
    await start(place, "installLibtensorflow").end();
    await place.assertInstalled();
  },
});

Deno.test("of two processes at once, one downloads and the other says that it waits, and both succeed", async () => {
  await using place = await Place.make();
  await place.tellPip("hold");
  const first = start(place, "installLibtensorflow");
  await first.assertSays("Installing");
  const second = start(place, "installLibtensorflow");
  await second.assertSays("Waiting for another process");
  await place.tellPip("hold", null);
  const [a, b] = await Promise.all([first.end(), second.end()]);
  assert.ok(a.found);
  assert.deepEqual(a.found, b.found);
  assert.equal(place.pipRuns(), 1);
  await place.assertInstalled();
});

Deno.test({
  name: "SIGTERM during an installation ends pip too, and then the installation, by that signal",
  ignore: Deno.build.os === "windows",
  async fn() {
    await using place = await Place.make();
    await place.tellPip("hold");
    const { process: installation } = start(place, "installLibtensorflow"), file = join(place.folder, "pid");
    while (!Number(await Deno.readTextFile(file).catch(() => ""))) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const pip = Number(await Deno.readTextFile(file));
    process.kill(pip, 0); // it is there
    installation.kill("SIGTERM");
    await installation.stdout.cancel();
    assert.equal((await installation.status).signal, "SIGTERM");
    assert.throws(() => process.kill(pip, 0), { code: "ESRCH" });
    await place.tellPip("hold", null);
  },
});

Deno.test("when the process that downloads is killed, the one that waits takes over", async () => {
  await using place = await Place.make();
  await place.tellPip("hold");
  const first = start(place, "installLibtensorflow");
  await first.assertSays("Installing");
  const second = start(place, "installLibtensorflow");
  await second.assertSays("Waiting for another process");
  await first.kill();
  await second.assertSays("Installing");
  await place.tellPip("hold", null);
  assert.ok((await second.end()).found);
  await place.assertInstalled();
});

Deno.test("a process that waits for one that removes the cache holds the lock that later ones see", async () => {
  await using place = await Place.make();
  await place.tellPip("hold");
  await Deno.mkdir(place.cache);
  const lock = join(place.cache, "libtensorflow.lock");
  const removing = await Deno.open(lock, { create: true, write: true });
  await removing.lock(true);
  const first = start(place, "installLibtensorflow");
  await first.assertSays("Waiting for another process");
  await Deno.remove(place.cache, { recursive: true });
  removing.close();
  await first.assertSays("Installing");
  const second = start(place, "installLibtensorflow");
  await second.assertSays("Waiting for another process");
  await place.tellPip("hold", null);
  await Promise.all([first.end(), second.end()]);
  assert.equal(place.pipRuns(), 1);
});

Deno.test("a process killed at any moment leaves nothing that is used, and the next run sweeps up and succeeds", async () => {
  await using place = await Place.make();
  for (const haltAt of ["in pip", 0.1, 0.4, 0.6, 0.9, 1]) {
    if (haltAt === "in pip") await place.tellPip("hold");
    const run = start(place, "installLibtensorflow", { haltAt });
    await run.until(({ done, total }) => done! / total! >= (haltAt === "in pip" ? 0.01 : haltAt as number));
    await run.kill();
    await place.tellPip("hold", null);
    const parts = namesIn(place.cache).filter((name) => name.includes(".part-"));
    assert.equal(parts.length, 1, `killed at ${haltAt}: only its own leftovers are there: ${parts}`);
    assert.notEqual((await start(place, "findLibtensorflow").end()).found?.source, "set-up");
  }
  assert.ok((await start(place, "installLibtensorflow").end()).found);
  await place.assertInstalled();
});

Deno.test("an installation that lost a file is replaced", async () => {
  await using place = await Place.make();
  await start(place, "installLibtensorflow").end();
  await Deno.remove(join(place.cache, INSTALLED, "tensorflow", MAIN));
  await start(place, "installLibtensorflow").end();
  await place.assertInstalled();
  assert.equal(place.pipRuns(), 2);
});

Deno.test("removeLibtensorflow() removes what was installed and what was left over, nothing else, and may be repeated", async () => {
  await using place = await Place.make();
  await start(place, "installLibtensorflow").end();
  await Deno.mkdir(join(place.cache, `${INSTALLED}.part-abc`));
  await Deno.writeTextFile(join(place.cache, "other"), "not ours");
  const first = await start(place, "removeLibtensorflow").end();
  assert.deepEqual(first.found, [join(place.cache, INSTALLED)]);
  assert.deepEqual(namesIn(place.cache), ["other"]);
  assert.deepEqual((await start(place, "removeLibtensorflow").end()).found, []);
  await Deno.remove(join(place.cache, "other"));
  await start(place, "removeLibtensorflow").end();
  assert.deepEqual(namesIn(place.cache), [], "the folder is the user's, who named it");
  await Deno.remove(place.cache);
  assert.deepEqual((await start(place, "removeLibtensorflow").end()).found, []);
});

Deno.test("the cache of the system goes when it is empty", async () => {
  await using place = await Place.make();
  const env = { OMNIBUS_CACHE: "", XDG_CACHE_HOME: place.folder, HOME: place.folder, LOCALAPPDATA: place.folder };
  const { found } = await start(place, "installLibtensorflow", {}, env).end();
  const cache = dirname(dirname(dirname(found!.main)));
  assert.equal(basename(cache), "omnibus");
  assert.deepEqual((await start(place, "removeLibtensorflow", {}, env).end()).found, [join(cache, INSTALLED)]);
  assert.ok(!namesIn(dirname(cache)).includes("omnibus"));
});

Deno.test("what has such a name in a shared cache, but was not installed here, stays and is named", async () => {
  await using place = await Place.make();
  await start(place, "installLibtensorflow").end();
  const foreign = ["libtensorflow-2.15.0-custom", "libtensorflow-2.9.1.part-of-my-thesis", `${INSTALLED}-cuda`];
  for (const name of foreign) await place.putLibraries(join(place.cache, name, "tensorflow"));
  await Deno.writeTextFile(join(place.cache, foreign[0], "installed.json"), `{ "files": ["tensorflow/${MAIN}"] }`);
  await Deno.writeTextFile(join(place.cache, "libtensorflow-notes.txt"), "mine");
  await Deno.symlink(join(place.cache, foreign[0]), join(place.cache, "libtensorflow-link"));
  const before = await tree(place.cache), { found, events } = await start(place, "removeLibtensorflow").end();
  assert.deepEqual(found, [join(place.cache, INSTALLED)]);
  const ours = (path: string) => path.startsWith(`${INSTALLED}/`) || path === "libtensorflow.lock";
  assert.deepEqual(await tree(place.cache), before.filter((path) => !ours(path)));
  assert.deepEqual(
    events.flatMap(({ log }) => log ?? []).sort(),
    [foreign[0], foreign[2]].map((name) => `${join(place.cache, name)} stays: it was not installed here.`).sort(),
  );
});

Deno.test("files that somebody put into an installation stay, and are named; what was installed goes", async () => {
  await using place = await Place.make();
  await start(place, "installLibtensorflow").end();
  const folder = join(place.cache, INSTALLED), outside = join(place.folder, "outside");
  await Deno.writeTextFile(outside, "not to be removed");
  const record = JSON.parse(await Deno.readTextFile(join(folder, "installed.json")));
  assert.deepEqual(record.files, [...LIBRARIES.map((name) => `tensorflow/${name}`), "installed.json"]);
  record.files.push("../../outside"); // as somebody might who wants others to remove it
  await Deno.writeTextFile(join(folder, "installed.json"), JSON.stringify(record));
  await Deno.writeTextFile(join(folder, "tensorflow", "notes"), "mine");
  const { found, events } = await start(place, "removeLibtensorflow").end();
  assert.deepEqual(found, []);
  assert.deepEqual(events.flatMap(({ log }) => log ?? []), [
    `${folder} stays with what was not installed here: tensorflow/notes.`,
  ]);
  assert.deepEqual(await tree(place.cache), [`${INSTALLED}/tensorflow/notes`]);
  assert.ok((await Deno.stat(outside)).isFile);
});

Deno.test("an installation does not overwrite what it did not make: it says what is in the way", async () => {
  await using place = await Place.make();
  const target = join(place.cache, INSTALLED);
  await Deno.mkdir(join(target, "tensorflow"), { recursive: true });
  await Deno.writeTextFile(join(target, "tensorflow", "notes"), "mine");
  const { error } = await start(place, "installLibtensorflow").end();
  assert.deepEqual([error?.name, place.pipRuns()], ["SetupError", 0]);
  assert.match(error!.message, /stays: it was not installed here\. Move it away, or set OMNIBUS_CACHE/);
  assert.deepEqual(await tree(target), ["tensorflow/notes"]);
});

/** All files below a folder, links among them, by their paths in it. */
async function tree(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    found.push(...isDirectory ? (await tree(join(folder, name))).map((path) => `${name}/${path}`) : [name]);
  }
  return found.sort();
}

Deno.test("LIBTENSORFLOW_DIR comes before what is installed", async () => {
  await using place = await Place.make();
  await start(place, "installLibtensorflow").end();
  const own = join(place.folder, "own");
  await place.putLibraries(own);
  const { found } = await start(place, "ensureLibtensorflow", {}, { LIBTENSORFLOW_DIR: own }).end();
  assert.deepEqual(found, {
    main: join(own, MAIN),
    framework: LIBRARIES[1] ? join(own, LIBRARIES[1]) : null,
    source: "LIBTENSORFLOW_DIR",
  });
});

Deno.test("a LIBTENSORFLOW_DIR without libtensorflow is an error of one line, not a reason to look elsewhere", async () => {
  await using place = await Place.make();
  await start(place, "installLibtensorflow").end();
  const { error } = await start(place, "findLibtensorflow", {}, { LIBTENSORFLOW_DIR: place.folder }).end();
  assert.equal(error?.name, "RangeError");
  assert.ok(error!.message.includes(place.folder) && error!.message.includes(MAIN), error!.message);

  const { code, stderr } = await setup(["--cuda"], { LIBTENSORFLOW_DIR: place.folder });
  assert.equal(code, 2);
  assert.match(stderr, /^setup: LIBTENSORFLOW_DIR is set .*\n$/);
});

Deno.test("the build for CUDA is preferred once it is installed", async () => {
  await using place = await Place.make();
  await start(place, "installLibtensorflow").end();
  await start(place, "installLibtensorflow", { cuda: true }).end();
  const { found } = await start(place, "findLibtensorflow").end();
  assert.equal(found?.main, join(place.cache, `${INSTALLED}-cuda`, "tensorflow", MAIN));
});

Deno.test("an installed Python tensorflow is found without importing it, from version 2.16 on", async () => {
  await using place = await Place.make();
  const site = join(place.folder, "site");
  await place.putLibraries(join(site, "tensorflow"));
  await Deno.writeTextFile(join(site, "tensorflow", "__init__.py"), "raise SystemExit('it was imported')");
  for (const [version, works] of [["2.15.1", false], ["2.16.0", true], ["2.21.0", true], ["3.0.0", true]] as const) {
    const info = join(site, `tensorflow_cpu-${version}.dist-info`);
    await Deno.mkdir(info);
    await Deno.writeTextFile(
      join(info, "METADATA"),
      `Metadata-Version: 2.1\nName: tensorflow-cpu\nVersion: ${version}\n`,
    );
    const { found } = await start(place, "findLibtensorflow", {}, { PYTHONPATH: site, VIRTUAL_ENV: "" }).end();
    assert.equal(found?.source === `Python's tensorflow ${version}`, works, JSON.stringify(found));
    if (works) assert.equal(found?.main, join(site, "tensorflow", MAIN));
    await Deno.remove(info, { recursive: true });
  }
});

Deno.test("a machine that nothing is built for gets an error that says so", () => {
  const refused = (message: RegExp) => (error: Error) => error instanceof SetupError && message.test(error.message);
  assert.throws(() => wheelsFor(false, "freebsd-x86_64"), refused(/freebsd-x86_64.*LIBTENSORFLOW_DIR/));
  assert.throws(() => wheelsFor(false, "windows-x86_64"), refused(/windows-x86_64/));
  assert.throws(() => wheelsFor(true, "darwin-aarch64"), refused(/CUDA .*linux-x86_64 only.*--cuda/));
});

Deno.test("every pinned build has TensorFlow's two libraries, and whole pins", () => {
  const builds = ["linux-x86_64", "linux-aarch64", "darwin-aarch64"].map((platform) => wheelsFor(false, platform));
  for (const wheels of [...builds, wheelsFor(true, "linux-x86_64")]) {
    const names = Object.keys(wheels[0].libraries).join();
    assert.match(names, /^tensorflow\/libtensorflow_cc\..*,tensorflow\/libtensorflow_framework\./);
    for (const { file, bytes, sha256, libraries } of wheels) {
      assert.match(file, /^\w+-[\d.]+-(cp312-cp312|py3-none)-[\w.]+\.whl$/);
      assert.match(sha256, /^[0-9a-f]{64}$/);
      assert.ok(bytes > 0 && Object.values(libraries).every((size) => size > 0));
    }
  }
});

Deno.test("setup --remove and --cuda together are refused", async () => {
  const { code, stderr } = await setup(["--remove", "--cuda"]);
  assert.equal(code, 2);
  assert.match(stderr, /^setup: .*\n$/);
});

Deno.test("programs in a wheel can be run when they are unpacked, libraries cannot", async () => {
  const folder = await Deno.makeTempDir({ prefix: "omnibus-install-" }), archive = join(folder, "wheel");
  const files = new Map([["a/bin/tool", noise(100)], ["a/lib/library", noise(200)]]);
  await Deno.writeFile(archive, zip(files, 8));
  const destination = (name: string) => join(folder, name);
  const members = [...files].map(([name, { length }]) => ({ name, bytes: length, destination: destination(name) }));
  await unpack(archive, members, () => {});
  const modes = [...files.keys()].map((name) => Deno.statSync(destination(name)).mode! & 0o111);
  assert.deepEqual(modes.map((mode) => mode !== 0), [true, false]);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("oneDNN is installed from its wheel beside libtensorflow, and each is found and removed without the other", async () => {
  await using place = await Place.make();
  const wheels = await place.offerOnednn();
  await start(place, "installLibtensorflow").end();
  const { found, events } = await start(place, "ensureOnednn", { wheels }).end();
  assert.equal(found, join(place.cache, ONEDNN, "lib", "libdnnl.so.3"));
  assert.deepEqual(await tree(join(place.cache, ONEDNN)), ["installed.json", "lib/libdnnl.so.3"]);
  assert.match(
    events.find(({ log }) => log)!.log!,
    /^Installing oneDNN 3\.2\.0: downloads [\d.]+ kB, takes 500 kB in /,
  );
  for (const name of ["ensureOnednn", "installOnednn", "installedOnednn"]) {
    const again = await start(place, name, { pip: ["no-such-pip"] }).end();
    assert.deepEqual([again.found, again.events.length], [found, 1], "at once and without a word");
  }
  assert.deepEqual((await start(place, "removeOnednn").end()).found, [join(place.cache, ONEDNN)]);
  await place.assertInstalled();
  await start(place, "installOnednn", { wheels }).end();
  assert.deepEqual((await start(place, "removeLibtensorflow").end()).found, [join(place.cache, INSTALLED)]);
  assert.deepEqual(namesIn(place.cache), [ONEDNN, "onednn.lock"]);
});

Deno.test("what hinders oneDNN's installation is said of oneDNN, and nothing stays", async () => {
  await using place = await Place.make();
  const wheels = await place.offerOnednn();
  for (
    const [options, message] of [
      [{ wheels: [{ ...wheels[0], sha256: "0".repeat(64) }] }, new RegExp(`is not the file.*${wheels[0].sha256}`)],
      [{ wheels: [{ ...wheels[0], bytes: 1e18 }] }, /^Installing oneDNN needs 2000000 TB/],
      [
        { wheels, pip: undefined },
        /^oneDNN is downloaded with pip.*, or set ONEDNN_DIR to a folder that holds oneDNN\.$/,
      ],
    ] as const
  ) {
    const { error } = await start(place, "installOnednn", options, { PATH: place.folder }).end();
    assert.equal(error?.name, "SetupError", JSON.stringify(error));
    assert.match(error!.message, message);
    assert.deepEqual(namesIn(place.cache), ["onednn.lock"]);
  }
});

Deno.test("ONEDNN_DIR comes before what is installed, and one without oneDNN is an error", async () => {
  await using place = await Place.make();
  await start(place, "installOnednn", { wheels: await place.offerOnednn() }).end();
  const own = join(place.folder, "own"), env = { ONEDNN_DIR: own };
  const { error } = await start(place, "ensureOnednn", {}, env).end();
  assert.equal(error?.name, "RangeError");
  assert.equal(
    error!.message,
    `ONEDNN_DIR is ${own}, which does not hold libdnnl.so.3. ` +
      "Correct it, or unset it to have oneDNN found or installed.",
  );
  await Deno.mkdir(own);
  await Deno.writeTextFile(join(own, "libdnnl.so.3"), "");
  assert.equal((await start(place, "ensureOnednn", {}, env).end()).found, join(own, "libdnnl.so.3"));
});

Deno.test("oneDNN is built for one platform, with a whole pin; others get an error that says so", () => {
  const [{ file, bytes, sha256, libraries }, ...others] = onednnWheelsFor("linux-x86_64");
  assert.deepEqual([others, Object.values(libraries)], [[], [54_569_528]]);
  assert.match(`${file} ${bytes} ${sha256}`, /^onednn_cpu_gomp-2023\.2\.0-.*\.whl 38888991 [0-9a-f]{64}$/);
  assert.deepEqual(["linux-x86_64", "linux-aarch64"].map(hasOnednn), [true, false]);
  const refused = (error: Error) => error instanceof SetupError && /linux-aarch64.*ONEDNN_DIR/.test(error.message);
  assert.throws(() => onednnWheelsFor("linux-aarch64"), refused);
});

/** A temporary folder with a cache, a wheel, and a pip that copies the wheel; files in it tell that pip what to do. */
class Place {
  #libraries = new Map(LIBRARIES.map((name, i) => [name, noise(i === 0 ? 6e6 : 2e6)]));
  wheels: Wheel[] = [];
  readonly cache: string;

  private constructor(readonly folder: string) {
    this.cache = join(folder, "cache");
  }

  static async make({ method = 8 } = {}): Promise<Place> {
    const place = new Place(await Deno.realPath(await Deno.makeTempDir({ prefix: "omnibus-install-" })));
    await Deno.writeTextFile(join(place.folder, "pip.ts"), PIP);
    const files = new Map<string, Uint8Array>([["tensorflow/__init__.py", new TextEncoder().encode("import other")]]);
    for (const [name, data] of place.#libraries) files.set(`tensorflow/${name}`, data);
    await place.offer(zip(files, method));
    return place;
  }

  /** Makes `bytes` the wheel that pip finds, and pins it. */
  async offer(bytes: Uint8Array) {
    const libraries = Object.fromEntries(
      [...this.#libraries].map(([name, data]) => [`tensorflow/${name}`, data.length]),
    );
    this.wheels = [await this.#pin(WHEEL, bytes, libraries)];
  }

  /** Lets pip find a wheel of oneDNN, too, which it gives, pinned. */
  async offerOnednn(): Promise<Wheel[]> {
    const file = "onednn_cpu_gomp-2023.2.0-py2.py3-none-manylinux1_x86_64.whl";
    const folder = "onednn_cpu_gomp-2023.2.0.data/data/lib", library = noise(5e5);
    const bytes = zip(new Map(["libdnnl.so", "libdnnl.so.3"].map((name) => [`${folder}/${name}`, library])), 8);
    const wheel = await this.#pin(file, bytes, { [`${folder}/libdnnl.so.3`]: library.length });
    return [{ ...wheel, into: "lib" }];
  }

  async #pin(file: string, bytes: Uint8Array, libraries: Record<string, number>): Promise<Wheel> {
    await Deno.writeFile(join(this.folder, file), bytes);
    return { file, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex"), libraries };
  }

  async tellPip(order: string, text: string | null = "") {
    const path = join(this.folder, order);
    await (text === null ? Deno.remove(path).catch(() => {}) : Deno.writeTextFile(path, text));
  }

  pipRuns(): number {
    return namesIn(this.folder).filter((name) => name.startsWith("pip ran")).length;
  }

  async putLibraries(folder: string) {
    await Deno.mkdir(folder, { recursive: true });
    for (const [name, data] of this.#libraries) await Deno.writeFile(join(folder, name), data);
  }

  /** The installation is complete, and alone in the cache. */
  async assertInstalled() {
    assert.deepEqual(namesIn(this.cache), [INSTALLED, "libtensorflow.lock"]);
    for (const [name, data] of this.#libraries) {
      const found = await Deno.readFile(join(this.cache, INSTALLED, "tensorflow", name));
      assert.ok(Buffer.compare(found, data) === 0, `${name} is as it was in the wheel`);
    }
  }

  async [Symbol.asyncDispose]() {
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** A stand-in for `pip download`: the files beside it say what it does, and that it ran. */
const PIP = `
  const folder = import.meta.dirname;
  const exists = (name) => { try { return Deno.statSync(folder + "/" + name).isFile; } catch { return false; } };
  const destination = Deno.args.find((arg) => arg.startsWith("--dest=")).slice("--dest=".length);
  const wanted = Deno.args.at(-1).replace("==", "-") + "-";
  const wheel = [...Deno.readDirSync(folder)].map(({ name }) => name).find((name) => name.startsWith(wanted));
  Deno.writeTextFileSync(folder + "/pip ran " + crypto.randomUUID(), Deno.args.join(" "));
  if (exists("fail")) {
    await Deno.stderr.write(Deno.readFileSync(folder + "/fail"));
    Deno.exit(1);
  }
  if (exists("full download")) {
    await Deno.stderr.write(new TextEncoder().encode("ERROR: OSError: [Errno 28] No space left on device\\n"));
    Deno.exit(1);
  }
  if (exists("full library")) {
    Deno.mkdirSync(destination + "/complete/tensorflow", { recursive: true });
    Deno.symlinkSync("/dev/full", destination + "/complete/tensorflow/${MAIN}");
  }
  if (exists("hold")) {
    Deno.writeTextFileSync(folder + "/pid", String(Deno.pid));
    const bytes = Deno.readFileSync(folder + "/" + wheel);
    Deno.writeFileSync(Deno.env.get("TMPDIR") + "/half", bytes.subarray(0, bytes.length / 2));
    while (exists("hold")) await new Promise((resolve) => setTimeout(resolve, 10));
  }
  Deno.copyFileSync(folder + "/" + wheel, destination + "/" + wheel);
`;

/** What a process of ours prints, one JSON object a line: what the function logs and reports, and how it ends. */
interface Event {
  log?: string;
  done?: number;
  total?: number;
  // deno-lint-ignore no-explicit-any
  found?: any;
  error?: { name: string; message: string };
}

const LIB = new URL("../lib/", import.meta.url);
const PROGRAM = `
  const [name, options] = JSON.parse(Deno.args[0]);
  const print = (event) => console.log(JSON.stringify(event));
  try {
    const modules = ["tensorflow/install/install.ts", "tensorflow/install/locate.ts", "onednn/install.ts"];
    const { [name]: call } = Object.assign({}, ...await Promise.all(modules.map((path) => import("${LIB}" + path))));
    const log = (log) => print({ log });
    const onProgress = (done, total) => {
      print({ done, total });
      if (done / total >= options.haltAt) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    };
    const found = name.startsWith("remove") ? await call(log) : await call({ ...options, log, onProgress });
    print({ found });
  } catch (error) {
    print({ error: { name: error.name, message: error.message } });
  }
`;

/** Calls one function of the module under test in a process of its own. */
class Run {
  readonly #events: Event[] = [];
  readonly #lines: AsyncGenerator<string>;

  constructor(readonly process: Deno.ChildProcess) {
    this.#lines = lines(process.stdout);
  }

  /** Reads on to the first event that `matches`, or to the end. */
  async until(matches: (event: Event) => boolean | undefined) {
    for (let next; !(next = await this.#lines.next()).done;) {
      const event: Event = JSON.parse(next.value);
      this.#events.push(event);
      if (matches(event)) return;
    }
  }

  /** Its next line for people begins so. */
  async assertSays(words: string) {
    await this.until(({ log }) => log !== undefined);
    assert.ok(
      this.#events.at(-1)?.log?.startsWith(words),
      `${JSON.stringify(this.#events.at(-1))} does not say ${words}`,
    );
  }

  /** How it ended, and all that it printed. */
  async end(): Promise<Event & { events: Event[] }> {
    await this.until(() => false);
    const { success } = await this.process.status;
    assert.ok(success, "the process ended well");
    return { ...this.#events.at(-1), events: this.#events };
  }

  async kill() {
    this.process.kill("SIGKILL");
    await this.process.status;
    await this.#lines.return(undefined);
  }
}

function start(place: Place, name: string, options = {}, env = {}): Run {
  const pip = [Deno.execPath(), "run", "--allow-all", "--no-config", join(place.folder, "pip.ts")];
  const call = JSON.stringify([name, { pip, wheels: place.wheels, ...options }]);
  return new Run(
    new Deno.Command(Deno.execPath(), {
      args: ["eval", PROGRAM, call],
      cwd: new URL("..", import.meta.url),
      env: { OMNIBUS_CACHE: place.cache, LIBTENSORFLOW_DIR: "", ONEDNN_DIR: "", ...env },
      stdout: "piped",
    }).spawn(),
  );
}

/** The installation fails with a SetupError whose message matches, and leaves nothing in the cache but the lock. */
async function assertRefused(place: Place, message: RegExp, options = {}, env = {}) {
  const { error } = await start(place, "installLibtensorflow", options, env).end();
  assert.equal(error?.name, "SetupError", JSON.stringify(error));
  assert.match(error!.message, message);
  assert.deepEqual(namesIn(place.cache), ["libtensorflow.lock"]);
}

async function setup(args: string[], env = {}) {
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", new URL("cli/setup.ts", LIB).href, ...args],
    env,
  }).output();
  return { code, stderr: new TextDecoder().decode(stderr) };
}

function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

/** Bytes that deflate to about half. */
function noise(length: number): Uint8Array {
  let state = length;
  return Uint8Array.from({ length }, () => (state = (state * 1103515245 + 12345) & 0x7fffffff) >> 20 & 15);
}

/** A zip archive, all of whose files are stored (method 0) or deflated (8); those in folders `bin` are programs. */
function zip(files: Map<string, Uint8Array>, method: number): Uint8Array {
  const parts: Uint8Array[] = [], table: Uint8Array[] = [];
  let offset = 0;
  for (const [path, data] of files) {
    const name = new TextEncoder().encode(path), body = method === 8 ? deflateRawSync(data, { level: 1 }) : data;
    const common: (number | [number])[] = [
      20,
      0,
      method,
      0,
      0,
      [crc32(data)],
      [body.length],
      [data.length],
      name.length,
    ];
    parts.push(fields([0x04034b50], ...common, 0), name, body);
    const mode = path.includes("/bin/") ? 0o100755 : 0o100644;
    table.push(fields([0x02014b50], 20, ...common, 0, 0, 0, 0, 0, mode, [offset]), name);
    offset += 30 + name.length + body.length;
  }
  const size = table.reduce((sum, part) => sum + part.length, 0);
  const end = fields([0x06054b50], 0, 0, files.size, files.size, [size], [offset], 0);
  return Buffer.concat([...parts, ...table, end]);
}

/** Little-endian: a number takes two bytes, one in brackets four. */
function fields(...values: (number | [number])[]): Uint8Array {
  return Uint8Array.from(values.flatMap((value) => {
    const [number, bytes] = typeof value === "number" ? [value, 2] : [value[0], 4];
    return Array.from({ length: bytes }, (_, i) => number >>> (8 * i) & 255);
  }));
}
