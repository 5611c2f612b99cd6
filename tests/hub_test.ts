/** Models from a hub, which is a server on this machine: see fake_hub.ts. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { GPT2_SIZES } from "../lib/gpt2/config.ts";
import { HubClient } from "../lib/hub/client.ts";
import { HubError } from "../lib/hub/error.ts";
import { hubModel, isCommit, KNOWN_MODELS } from "../lib/hub/name.ts";
import { redirectTarget } from "../lib/hub/redirect.ts";
import { hubSettings } from "../lib/hub/settings.ts";
import { type Fault, gitChecksum, type Seen, sha256 } from "./_support/fake_hub.ts";
import { modelFiles, namesIn, Place, TOKEN } from "./_support/hub_place.ts";

const WEIGHTS = "model.safetensors";
type TensorHeader = { dtype: string; shape: number[]; data_offsets: [number, number] };
/** The request for the weights' bytes, which the second server gets. */
const isContent = ({ server, file }: Seen) => server === "storage" && file === WEIGHTS;
const text = (value: unknown) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));

Deno.test("a model comes whole, checked, and the second time without a request", async () => {
  await using place = await Place.make();
  const { hub } = place, steps: [number, number][] = [];
  const installed = await place.install({ onProgress: (done, total) => steps.push([done, total]) });
  await place.assertInstalled(installed.folder);
  assert.equal(installed.folder, join(place.models, "tester--tiny"));
  assert.deepEqual([installed.wasThere, installed.record?.commit], [false, hub.commit]);
  assert.deepEqual(hub.downloads, ["config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS, WEIGHTS]);

  const bytes = installed.record!.files.reduce((sum, { size }) => sum + size, 0);
  assert.ok(steps.length > 3 && steps.every(([, total]) => total === bytes));
  assert.ok(steps.every(([done], i) => i === 0 || done >= steps[i - 1][0]), "progress goes back");
  assert.equal(steps.at(-1)![0], bytes);

  const before = hub.requests.length;
  const again = await place.install();
  assert.deepEqual([again.wasThere, again.parameters, again.record], [true, installed.parameters, installed.record]);
  assert.equal(hub.requests.length, before);
  assert.deepEqual([place.log, place.waits], [[], []]);
});

/** A model whose tensors have a file each, called what `nameOf` says, with an index. */
async function filesInShards(nameOf: (i: number) => string) {
  const files = await modelFiles();
  const whole = files.get(WEIGHTS)!;
  const length = Number(new DataView(whole.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(whole.subarray(8, 8 + length)));
  const weight_map: Record<string, string> = {};
  for (
    const [i, [name, { dtype, shape, data_offsets: [begin, end] }]] of Object.entries<TensorHeader>(header).entries()
  ) {
    const one = text({ [name]: { dtype, shape, data_offsets: [0, end - begin] } });
    const shard = new Uint8Array(8 + one.length + end - begin);
    new DataView(shard.buffer).setBigUint64(0, BigInt(one.length), true);
    shard.set(one, 8);
    shard.set(whole.subarray(8 + length + begin, 8 + length + end), 8 + one.length);
    files.set(weight_map[name] = nameOf(i), shard);
  }
  files.delete(WEIGHTS);
  files.set("model.safetensors.index.json", text({ weight_map }));
  return { files, weight_map };
}

Deno.test("a model in shards comes with the shards of its index, and no other", async () => {
  const { files, weight_map } = await filesInShards((i) => `model-${i}.safetensors`);
  files.set("other-00001.safetensors", new Uint8Array(99));
  await using place = await Place.make(files);
  await place.install();
  await place.assertInstalled();

  await Deno.remove(place.models, { recursive: true });
  await fillCache(place);
  place.hub.requests.length = 0;
  const { folder } = await place.install({ offline: true });
  await place.assertInstalled();
  assert.ok((await Deno.realPath(join(folder, "model-3.safetensors"))).startsWith(place.cache));
  assert.deepEqual(place.hub.requests, []);

  await Deno.remove(place.cache, { recursive: true });
  await Deno.remove(place.models, { recursive: true });
  files.delete("model-3.safetensors");
  await place.assertRefused(/index\.json lists model-3\.safetensors, which is not there/);
  files.set(
    "model.safetensors.index.json",
    text({ weight_map: { ...weight_map, "ln_f.bias": "../../x.safetensors" } }),
  );
  await place.assertRefused(/not the name of a safetensors file/);
});

Deno.test("the published names mean pinned commits", async () => {
  assert.deepEqual(Object.keys(KNOWN_MODELS).sort(), Object.keys(GPT2_SIZES).sort());
  for (const { revision } of Object.values(KNOWN_MODELS)) assert.ok(isCommit(revision));
  const { repository, revision: commit } = KNOWN_MODELS.gpt2;
  await using place = await Place.make(undefined, { repository, commit });
  const { folder } = await place.install({}, "gpt2");
  assert.equal(folder, join(place.models, "gpt2"));
  assert.equal(place.hub.requests[0].path, `/api/models/${repository}/revision/${commit}`);

  await place.install({ revision: commit }, "gpt2");
  await assert.rejects(
    place.install({ revision: "main" }, "gpt2"),
    /^HubError: Cannot get openai-community\/gpt2: .*gpt2 holds commit 607a30d.*Remove it to get main instead/,
  );
});

Deno.test("what is no name is refused before anything is asked or written", async () => {
  await using place = await Place.make();
  const names = ["", ".", "..", "../x", "../../x", "a/..", "../gpt2", "/etc", "/a/b", "a/b/c", "a//b", "gpt2/", "a/.b"]
    .concat(["a\\b", "..\\x", "C:\\x", "C:/x", "a:b/c", "https://host/x", "file:///etc", "%2e%2e/x", "a/b?c", "a/b#c"])
    .concat(["gpt2\n", "a/b\0", "a/ b", "-a/b", "a/b.git", "a--b/c", "a/b.", "a/é", "a".repeat(200) + "/b", "small"])
    .concat(["toString", "__proto__", "a/b\x1b[31m"]);
  for (const name of names) {
    const { message } = await place.assertRefused(
      /^RangeError: .* is not the name of a model: use distilgpt2/,
      {},
      name,
    );
    assert.ok(!/\p{Cc}/u.test(message));
  }
  for (const revision of ["", "../main", "a/../b", "/a", "a/", "a b", "a\n", "?x", "-x", "a".repeat(300)]) {
    await place.assertRefused(/^RangeError: .* is not a revision/, { revision });
  }
  assert.deepEqual([place.hub.requests, namesIn(place.models)], [[], []]);
  assert.equal(hubModel("a.b_c/D-1.2").folder, "a.b_c--D-1.2");
});

Deno.test("links where folders and files belong are refused or removed, never followed", async () => {
  await using place = await Place.make();
  const outside = join(place.root, "outside"), work = join(place.models, ".downloads");
  await Deno.mkdir(outside);
  const victim = join(outside, "victim");
  await Deno.writeTextFile(victim, "precious");
  const { files } = place.hub, partial = `${WEIGHTS}.${sha256(files.get(WEIGHTS)!).slice(0, 16)}.part`;
  await Deno.mkdir(work);
  for (const path of [place.models + "/tester--tiny", work + "/tester--tiny", work + "/tester--tiny.lock", work]) {
    await Deno.remove(path, { recursive: true }).catch(() => {});
    await Deno.symlink(path.endsWith(".lock") ? join(outside, "lock") : outside, path);
    await assert.rejects(place.install(), (error: Error) => {
      assert.match(
        `${error}`,
        /^HubError: Cannot get tester\/tiny: .* is a link, and may lead anywhere\. Remove it\.$/,
      );
      return error.message.includes(path);
    });
    await Deno.remove(path);
  }
  assert.deepEqual([namesIn(outside), place.hub.requests], [["victim"], []]);

  const staging = join(work, "tester--tiny");
  await Deno.mkdir(staging, { recursive: true });
  for (const name of [partial, `${partial}.etag`, "config.json", "tokenizer.json", "hub.json"]) {
    await Deno.symlink(victim, join(staging, name));
  }
  await Deno.mkdir(join(staging, WEIGHTS));
  await place.install();
  await place.assertInstalled();
  assert.equal(await Deno.readTextFile(victim), "precious");
});

Deno.test("settings are read from the variables that Hugging Face's programs read", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(join(folder, "token"), `${TOKEN}\n`);
  const home = join(folder, "none");
  const plain = await hubSettings({ HOME: home });
  assert.deepEqual(
    [plain.endpoint.href, plain.token, plain.cache, plain.offline],
    ["https://huggingface.co/", undefined, join(home, ".cache/huggingface/hub"), false],
  );
  const all = { HF_ENDPOINT: "https://mirror.example/hf", HF_HOME: folder, HF_HUB_OFFLINE: "1" };
  const set = await hubSettings(all);
  assert.deepEqual(
    [set.endpoint.href, set.token, set.cache, set.offline],
    [all.HF_ENDPOINT, TOKEN, join(folder, "hub"), true],
  );
  assert.equal((await hubSettings({ ...all, HF_TOKEN: "other" })).token, "other");
  assert.equal((await hubSettings({ ...all, HF_HUB_CACHE: "/c" })).cache, "/c");
  assert.equal((await hubSettings({ HOME: home, XDG_CACHE_HOME: "/x" })).cache, "/x/huggingface/hub");
  for (
    const bad of ["huggingface.co", "file:///etc", "ftp://h", "javascript:1", `https://u:${TOKEN}@h`, "https://h?a"]
  ) {
    await assert.rejects(hubSettings({ HOME: home, HF_ENDPOINT: bad }), (error: Error) => {
      assert.match(`${error}`, /^RangeError: HF_ENDPOINT is not the address of a hub: use https:\/\/HOST/);
      return !error.message.includes(TOKEN);
    });
  }
  for (const bad of [`${TOKEN}\nx`, `${TOKEN} x`, `${TOKEN}é`, `${TOKEN}\r\nhost: evil`]) {
    await assert.rejects(hubSettings({ HOME: home, HF_TOKEN: bad }), (error: Error) => {
      assert.match(`${error}`, /^RangeError: The token in HF_TOKEN has spaces/);
      return !Deno.inspect(error).includes(TOKEN);
    });
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("the token goes to the hub and to nobody else", async () => {
  await using place = await Place.make();
  const { hub } = place;
  await place.install();
  const [atHub, elsewhere] = ["hub", "storage"].map((name) => hub.requests.filter(({ server }) => server === name));
  assert.ok(atHub.length > 4 && atHub.every(({ authorization }) => authorization === `Bearer ${TOKEN}`));
  assert.ok(elsewhere.length > 0 && elsewhere.every(({ authorization }) => authorization === null));
  for (const name of namesIn(join(place.models, "tester--tiny"))) {
    assert.ok(!(await Deno.readTextFile(join(place.models, "tester--tiny", name))).includes(TOKEN));
  }

  // Nor in a line that tells of another attempt, though the hub may name a file after it.
  const { files } = await filesInShards((i) => `${i}-${TOKEN}.safetensors`);
  await using named = await Place.make(files, { large: () => false });
  let isFirst = true;
  named.hub.fault = ({ file }) => file.includes(TOKEN) && isFirst ? (isFirst = false, { body: "" }) : undefined;
  await named.install();
  assert.match(named.log.join(), /^Trying again in 1 s: \d+-…\.safetensors ended after 0 of \d+ bytes\.$/);

  // Nor back to the hub by way of another host, which could choose the address; nor over http beyond this machine.
  hub.requests.length = 0;
  hub.fault = ({ server, file }) =>
    file === "away"
      ? { status: 307, headers: { location: `${server === "hub" ? hub.storage + "/away" : hub.endpoint + "/back"}` } }
      : undefined;
  const get = (endpoint: string, path: string) =>
    new HubClient({ endpoint: new URL(endpoint), token: TOKEN }).get(path, {}, () => Promise.resolve()).catch(() => {});
  await get(hub.endpoint, "away");
  assert.deepEqual(
    hub.requests.map(({ server, file, authorization }) => [server, file, authorization !== null]),
    [["hub", "away", true], ["storage", "away", false], ["hub", "back", false]],
  );
  hub.requests.length = 0;
  await get(hub.endpoint.replace("127.0.0.1", "0.0.0.0"), "x");
  assert.deepEqual(hub.requests.map(({ authorization }) => authorization), [null]);
});

Deno.test("redirects stay on the web and on https, and end", async () => {
  const to = (from: string, location: string | null) => redirectTarget(new URL(from), location).href;
  assert.equal(to("https://a/b/c", "/d?e"), "https://a/d?e");
  assert.equal(to("http://a/b", "https://c/d"), "https://c/d");
  assert.equal(to("http://127.0.0.1:1/b", "http://127.0.0.1:2/d"), "http://127.0.0.1:2/d");
  for (const location of [null, "http://a/d", "file:///etc/passwd", "data:,x", "ftp://a/b", "blob:https://a/b"]) {
    assert.throws(() => to("https://a/b", location), /^HubError: a redirects (to no address|from https: to )/);
  }
  for (const location of ["file:///etc/passwd", "data:,x", "ws://a/b", "javascript:1", "about:blank"]) {
    assert.throws(() => to("http://a/b", location), HubError);
  }
  for (const location of ["https://u:pass@c/d", "https://u@c/d"]) {
    assert.throws(() => to("https://a/b", location), (error: Error) => /with a password/.test(error.message));
  }

  const hidden = TOKEN.replace("never", "%6eever");
  for (
    const location of [`https://c/?t=${TOKEN}`, `https://c/${hidden}`, `//${TOKEN.replace("_", "-")}.d/`, `#${TOKEN}`]
  ) {
    const token = location.startsWith("//") ? TOKEN.replace("_", "-") : TOKEN;
    const withToken = () => redirectTarget(new URL("https://a/b"), location, token);
    assert.throws(withToken, /^HubError: a redirects to an address that has the token in it, which is not followed/);
  }
  assert.equal(redirectTarget(new URL("https://a/b"), "https://dummy/x", "dummy").href, "https://dummy/x");

  await using place = await Place.make();
  place.hub.fault = () => ({ status: 302, headers: { location: `${place.hub.storage}/?t=${TOKEN}` } });
  await place.assertRefused(/redirects to an address that has the token in it/);
  assert.deepEqual(place.hub.requests.map(({ server }) => server), ["hub"]);
  place.hub.fault = () => ({ status: 302, headers: { location: "file:///etc/passwd" } });
  await place.assertRefused(
    /^HubError: Cannot get tester\/tiny: .* redirects from http: to file:, which is not followed/,
  );
  place.hub.fault = () => ({ status: 302, headers: { location: "/again" } });
  await place.assertRefused(/redirects more than 5 times/);
  place.hub.fault = () => ({ status: 302 });
  await place.assertRefused(/redirects to no address/);
  const renamed = `/api/models/${place.hub.repository}/revision/main`;
  place.hub.fault = ({ path }) =>
    path.includes("/old/name/") ? { status: 307, headers: { location: `${renamed}?blobs=true` } } : undefined;
  place.hub.requests.length = 0;
  await place.install({}, "old/name").catch(() => {});
  assert.equal(place.hub.requests[1].path, renamed);
});

Deno.test("a refusal says what it may mean, at once", async () => {
  await using place = await Place.make();
  const { hub } = place;
  const cases: [number, string, RegExp][] = [
    [
      401,
      "",
      /does not exist on 127.*, or is private, or asks you to accept its terms; the token that was sent does not/,
    ],
    [403, "GatedRepo", /its terms must be accepted on 127\.0\.0\.1:\d+ first/],
    [403, "", /is private/],
    [404, "RepoNotFound", /there is no such model on 127.*Check the name and the revision/],
    [404, "RevisionNotFound", /no such revision of it\. Check --revision/],
    [400, "", /answers 400, which is no answer to this request\. Check HF_ENDPOINT/],
  ];
  for (const [status, code, message] of cases) {
    hub.requests.length = 0;
    hub.fault = () => ({ status, headers: { "x-error-code": code, "x-error-message": `you sent ${TOKEN}` } });
    await place.assertRefused(message);
    assert.equal(hub.requests.length, 1);
  }
  hub.fault = () => ({ status: 401 });
  await place.assertRefused(/no token was sent: set HF_TOKEN/, { settings: { ...place.settings, token: undefined } });
  const endpoint = new URL(hub.endpoint.replace("127.0.0.1", "0.0.0.0"));
  await place.assertRefused(/the token was not sent, because HF_ENDPOINT is not https/, {
    settings: { ...place.settings, endpoint },
  });
  assert.deepEqual(place.waits, []);
});

Deno.test("what may pass is tried again: later and later, or when the server says, and not for ever", async () => {
  await using place = await Place.make();
  const { hub, waits } = place;
  let failures = 3;
  hub.fault = () => failures-- > 0 ? { status: 503 } : undefined;
  await place.install();
  await place.assertInstalled();
  assert.deepEqual(waits.splice(0), [1, 2, 4]);
  assert.match(place.log[0], /^Trying again in 1 s: 127\.0\.0\.1:\d+ answers 503\.$/);

  await Deno.remove(place.models, { recursive: true });
  const soon = new Date(Date.now() + 90_000).toUTCString();
  for (const [status, header, expected] of [[429, "7", [7, 7]], [500, "0", [0, 0]], [429, "soon", [1, 2]]] as const) {
    let left = 2;
    hub.fault = (seen) => isContent(seen) && left-- > 0 ? { status, headers: { "retry-after": header } } : undefined;
    await place.install();
    assert.deepEqual(waits.splice(0), expected);
    await Deno.remove(place.models, { recursive: true });
  }
  let left = 1;
  hub.fault = () => left-- > 0 ? { status: 429, headers: { "retry-after": soon } } : undefined;
  await place.install();
  assert.ok(waits[0] > 80 && waits.splice(0)[0] <= 91);
  await Deno.remove(place.models, { recursive: true });

  hub.fault = () => ({ status: 429, headers: { "retry-after": "3600" } });
  await place.assertRefused(/answers 429 and asks to wait 3600 seconds\. Try later\.$/);
  hub.fault = () => ({ status: 502 });
  hub.requests.length = 0;
  await place.assertRefused(/answers 502, 5 times in a row\. Try again later\.$/);
  assert.deepEqual([waits, hub.requests.length], [[1, 2, 4, 8], 5]);
  hub.fault = (seen) => seen.server === "storage" ? { status: 403 } : undefined; // an address that expired
  await place.assertRefused(/answers 403, 5 times in a row/);
});

Deno.test("a hub that is not there is named, with the reason", async () => {
  await using place = await Place.make();
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const endpoint = new URL(`http://127.0.0.1:${listener.addr.port}`);
  listener.close();
  const settings = { ...place.settings, endpoint };
  await place.assertRefused(/127\.0\.0\.1:\d+ cannot be reached \(tcp connect error: Connection refused.*5 times/, {
    settings,
  });
});

Deno.test("a broken connection goes on where it ended, however often it breaks", async () => {
  await using place = await Place.make();
  const { hub } = place, size = hub.files.get(WEIGHTS)!.length;
  hub.fault = (seen) => isContent(seen) ? { cutAfter: 100_000 } : undefined;
  await place.install();
  await place.assertInstalled();
  const ranges = hub.requests.filter(isContent);
  assert.ok(ranges.length >= Math.floor(size / 100_000), `${ranges.length} connections`);
  assert.equal(ranges[0].range, null);
  assert.ok(ranges.slice(1).every(({ range, ifRange }) => /^bytes=\d+-$/.test(range!) && /^"storage-/.test(ifRange!)));
  assert.ok(hub.bytesSent < 1.1 * [...hub.files.values()].reduce((sum, { length }) => sum + length, 0));
  assert.ok(place.waits.every((seconds) => seconds === 1), "what gains something does not wait longer and longer");
});

Deno.test("a connection that falls silent counts as broken", async () => {
  await using place = await Place.make();
  let first = true;
  place.hub.fault = (seen) => isContent(seen) && first ? (first = false, { stallAfter: 200_000 }) : undefined;
  await place.install({ stallSeconds: 0.3 });
  await place.assertInstalled();
  assert.match(place.log[0], /^Trying again in 1 s: 127\.0\.0\.1:\d+ sent nothing for 0\.3 seconds\.$/);
  const [, kept] = /^bytes=(\d+)-$/.exec(place.hub.requests.filter(isContent)[1].range!)!;
  assert.ok(Number(kept) > 0 && Number(kept) <= 200_000, kept); // on a busy machine, silence may come before the last byte
});

Deno.test("a hub that trickles its list of files, never silent for long, is given up after a time", async () => {
  await using place = await Place.make();
  place.hub.fault = ({ path }) => path.startsWith("/api/") ? { trickle: 20 } : undefined;
  const install = place.install({ stallSeconds: 5, listSeconds: 0.5 });
  await assert.rejects(install, /Cannot get tester\/tiny: 127\S+ took more than 0\.5 seconds\. Try again later\.$/);
  assert.equal(place.hub.requests.length, 1);
});

Deno.test("a server that does not resume, or resumes another file, is read from the start", async () => {
  const size = (await modelFiles()).get(WEIGHTS)!.length;
  const answers: [Fault, RegExp][] = [
    [{ ignoreRange: true }, /broke\.$/],
    [{ headers: { etag: '"another"' } }, /broke\.$/],
    [{ headers: { etag: 'W/"weak"' } }, /broke\.$/],
    [{ headers: { "content-range": `bytes 0-${size - 1}/${size}` } }, /cannot be resumed\.$/],
    [{ headers: { "content-range": "nonsense" } }, /cannot be resumed\.$/],
    [{ status: 416 }, /cannot be resumed\.$/],
  ];
  for (const [answer, message] of answers) {
    await using place = await Place.make();
    let connections = 0;
    place.hub.fault = (seen) => {
      if (!isContent(seen)) return undefined;
      connections++;
      return connections === 1 ? { cutAfter: 300_000 } : connections === 2 ? answer : undefined;
    };
    await place.install();
    await place.assertInstalled();
    assert.match(place.log.at(-1)!, message);
  }
});

Deno.test("what is longer, shorter or other than the hub lists is not kept", async () => {
  await using place = await Place.make();
  const { hub } = place, good = hub.files.get(WEIGHTS)!;
  const flipped = good.with(good.length - 9, good.at(-9)! ^ 1);
  const cases: [Uint8Array, RegExp][] = [
    [flipped, /model\.safetensors does not have the checksum that the hub lists, [0-9a-f]{64}\. It was not kept/],
    [new Uint8Array([...good, 0]), /is longer than the \d+ bytes that the hub lists/],
    [good.subarray(0, -1), /model\.safetensors (ended after \d+ of \d+ bytes|cannot be resumed), 5 times in a row/],
  ];
  for (const [body, message] of cases) {
    hub.fault = (seen) => isContent(seen) ? { body } : undefined;
    await place.assertRefused(message);
  }
  hub.fault = ({ file }) => file === "config.json" ? { body: new Uint8Array(hub.files.get(file)!.length) } : undefined;
  await Deno.remove(place.models, { recursive: true });
  await place.assertRefused(/config\.json does not have the checksum that the hub lists, [0-9a-f]{40}\./);
  hub.fault = () => undefined;
  await place.install();
  await place.assertInstalled();
});

Deno.test("a partial file with wrong bytes is found out, and read from the start", async () => {
  await using place = await Place.make();
  const good = place.hub.files.get(WEIGHTS)!, staging = join(place.models, ".downloads", "tester--tiny");
  const partial = join(staging, `${WEIGHTS}.${sha256(good).slice(0, 16)}.part`);
  for (const bytes of [new Uint8Array(1000), new Uint8Array(good.length), new Uint8Array(good.length + 5)]) {
    await Deno.mkdir(staging, { recursive: true });
    await Deno.writeFile(partial, bytes);
    await place.install();
    await place.assertInstalled();
    await Deno.remove(place.models, { recursive: true });
  }
  await Deno.mkdir(staging, { recursive: true });
  await Deno.writeFile(join(staging, WEIGHTS), good.with(99, 1)); // under its final name, and wrong
  await place.install();
  await place.assertInstalled();
});

Deno.test("a hub that contradicts its own list is refused before the bytes come", async () => {
  await using place = await Place.make();
  const { hub } = place;
  const claims: [Record<string, string>, RegExp][] = [
    [
      { "x-repo-commit": "d".repeat(40) },
      /answers for model\.safetensors with another commit than c0ffee0*, which was asked for/,
    ],
    [{ "x-repo-commit": TOKEN }, /with another commit/],
    [{ "x-linked-etag": `"${"e".repeat(64)}"` }, /with a checksum that is not the listed [0-9a-f]{64}/],
  ];
  for (const [headers, message] of claims) {
    hub.fault = ({ server, file }) => server === "hub" && file === WEIGHTS ? { headers } : undefined;
    await place.assertRefused(message);
  }
  hub.fault = () => undefined;
  await place.assertRefused(/answers with commit c0ffee0* where 1{40} was asked for/, { revision: "1".repeat(40) });
});

Deno.test("an answer that is no list of files is refused", async () => {
  await using place = await Place.make();
  const sha = place.hub.commit, file = (fields: unknown) => ({ sha, siblings: [fields] });
  const big = { rfilename: WEIGHTS, size: 5, blobId: "a".repeat(40) };
  const cases: [unknown, RegExp][] = [
    ["<html>", /is not a list of files\. Check HF_ENDPOINT/],
    ["", /is not a list of files/],
    ["[".repeat(100_000) + "]".repeat(100_000), /is not a list of files/],
    [null, /is not a list of files/],
    [{ sha: "main", siblings: [] }, /is not a list of files/],
    [{ sha, siblings: {} }, /is not a list of files/],
    [{ sha, siblings: [] }, /it has no config\.json\. Choose a model that has one/],
    [{ sha, siblings: [null, 3, "x", { rfilename: "../config.json" }] }, /it has no config\.json/],
    [file({ rfilename: TOKEN }), /no size and checksum for "…"/],
    [file({ rfilename: "config.json" }), /no size and checksum for "config\.json"/],
    [file({ ...big, size: -1 }), /no size and checksum/],
    [file({ ...big, size: 2 ** 60 }), /no size and checksum/],
    [file({ ...big, blobId: "../../x" }), /no size and checksum/],
    [file({ ...big, lfs: { size: 5, sha256: "a".repeat(40) } }), /no size and checksum/],
    [`{"sha":"${" ".repeat(17_000_000)}`, /list of its files is far too long/],
  ];
  for (const [body, message] of cases) {
    place.hub.fault = () => ({ body: typeof body === "string" ? body : JSON.stringify(body) });
    await place.assertRefused(message);
  }
});

Deno.test("what no model here could be made of is refused, as early as possible, and nothing of it stays", async () => {
  const config = async (change: Record<string, unknown>) => (await modelFiles(change)).get("config.json")!;
  const weights = async (change: Record<string, unknown>) => (await modelFiles(change)).get(WEIGHTS)!;
  const llama = text({ model_type: "llama", n_embd: 5 });
  const cases: [string, Uint8Array | null, RegExp][] = [
    ["config.json", text({ model_type: TOKEN }), /model_type is "…"/],
    ["config.json", llama, /^RangeError: Cannot use tester\/tiny\/config\.json: model_type is "llama".*"gpt2"/],
    [
      "config.json",
      text("no JSON"),
      /^RangeError: Cannot load a model from tester\/tiny: its config\.json is not JSON/,
    ],
    ["config.json", await config({ n_layer: 3 }), /^RangeError: Cannot read tester\/tiny: there is no tensor h\.2\./],
    ["config.json", await config({ n_layer: 1 }), /GPT-2 has no tensor h\.1\..* and \d+ more/],
    [
      WEIGHTS,
      await weights({ n_positions: 32 }),
      /wpe\.weight has shape \[32,96\] and config\.json asks for \[96,96\]/,
    ],
    [WEIGHTS, new Uint8Array(100_000), /tester\/tiny\/model\.safetensors: the header is not valid/],
    ["tokenizer.json", text({ model: { type: "Unigram" } }), /tester\/tiny\/tokenizer\.json: its model is Unigram/],
    [
      "tokenizer.json",
      null,
      /^HubError: Cannot get tester\/tiny: it has no tokenizer\.json\. Choose a model that has one/,
    ],
    [
      WEIGHTS,
      null,
      /it has no model\.safetensors, only pytorch_model\.bin\. Choose a model with safetensors, or convert/,
    ],
    [
      "config.json",
      new Uint8Array(1_000_001),
      /its config\.json has 1000001 bytes, more than the 1000000 that are read/,
    ],
  ];
  for (const [name, bytes, message] of cases) {
    await using place = await Place.make();
    if (bytes) place.hub.files.set(name, bytes);
    else place.hub.files.delete(name);
    await place.assertRefused(message);
    assert.deepEqual(namesIn(join(place.models, ".downloads", "tester--tiny")), []);
    if (bytes === llama) assert.deepEqual(place.hub.downloads.filter((file) => file === WEIGHTS), []);
  }
});

Deno.test("a disk with too little room is found out before the weights are asked for", async () => {
  await using place = await Place.make();
  const siblings = ["config.json", "tokenizer.json"].map((name) => {
    const bytes = place.hub.files.get(name)!;
    return { rfilename: name, size: bytes.length, blobId: gitChecksum(bytes) };
  });
  const lfs = { size: 1e15, sha256: "a".repeat(64) };
  const body = JSON.stringify({ sha: place.hub.commit, siblings: [...siblings, { rfilename: WEIGHTS, lfs }] });
  place.hub.fault = ({ path }) => path.startsWith("/api/") ? { body } : undefined;
  await place.assertRefused(/it needs 1000 TB more in .*, and that disk has [\d.]+ [kMGT]B free\. Make room/);
  assert.deepEqual(place.hub.downloads, ["config.json", "tokenizer.json"]);
});

Deno.test("two at once download it once", async () => {
  await using place = await Place.make();
  place.hub.fault = () => ({ slow: 5 });
  const [one, other] = await Promise.all([place.install(), place.install()]);
  assert.deepEqual([one.wasThere, other.wasThere].sort(), [false, true]);
  assert.equal(place.hub.requests.filter(isContent).length, 1);
  assert.deepEqual(place.log, ["Waiting for another process that is getting tester/tiny."]);
  await place.assertInstalled();
});

Deno.test("a folder that is no longer what was downloaded is named, and left alone", async () => {
  await using place = await Place.make();
  const { folder } = await place.install();
  const good = await Deno.readFile(join(folder, WEIGHTS));
  for (const bad of [good.with(good.length - 1, 1 ^ good.at(-1)!), good.subarray(0, 50)]) {
    await Deno.writeFile(join(folder, WEIGHTS), bad);
    await assert.rejects(
      place.install(),
      /HubError: .*model\.safetensors is not what was downloaded\. Remove .*tester--tiny/,
    );
  }
  await Deno.writeFile(join(folder, WEIGHTS), good);
  await Deno.writeTextFile(join(folder, "hub.json"), "{");
  await assert.rejects(place.install(), /hub\.json is not JSON/);
  await Deno.remove(join(folder, "hub.json"));
  assert.deepEqual(await place.install().then(({ record, wasThere }) => [record, wasThere]), [undefined, true]);
});

/** Fills the place's Hugging Face cache with the hub's files, as links into `blobs` or as files. */
async function fillCache(place: Place, { name = place.hub.repository, links = true } = {}): Promise<string> {
  const folder = join(place.cache, `models--${name.replace("/", "--")}`), { commit, files } = place.hub;
  for (const part of ["refs", "blobs", `snapshots/${commit}`]) {
    await Deno.mkdir(join(folder, part), { recursive: true });
  }
  await Deno.writeTextFile(join(folder, "refs/main"), commit);
  for (const [file, bytes] of files) {
    if (file.includes("/")) continue;
    const blob = file.endsWith(".safetensors") ? sha256(bytes) : gitChecksum(bytes);
    const target = links ? join(folder, "blobs", blob) : join(folder, "snapshots", commit, file);
    await Deno.writeFile(target, bytes);
    if (links) await Deno.symlink(`../../blobs/${blob}`, join(folder, "snapshots", commit, file));
  }
  return folder;
}

Deno.test("what the Hugging Face cache holds is linked to, not downloaded", async () => {
  for (const links of [true, false]) {
    await using place = await Place.make();
    await fillCache(place, { links });
    const { folder } = await place.install();
    await place.assertInstalled();
    assert.deepEqual(place.hub.downloads, []);
    for (const name of ["config.json", WEIGHTS]) {
      assert.ok((await Deno.realPath(join(folder, name))).startsWith(place.cache), `${name} is a copy`);
    }
  }
  const { repository, revision: commit } = KNOWN_MODELS.distilgpt2; // which was once `distilgpt2`, without an owner
  await using place = await Place.make(undefined, { repository, commit });
  await fillCache(place, { name: "distilgpt2" });
  await place.install({ offline: true }, "distilgpt2");
  assert.deepEqual(place.hub.requests, []);
});

Deno.test("what the cache lacks or holds damaged is downloaded", async () => {
  await using place = await Place.make();
  const folder = await fillCache(place), good = place.hub.files.get(WEIGHTS)!;
  await Deno.writeFile(join(folder, "blobs", sha256(good)), good.with(7, 7));
  await Deno.remove(join(folder, "blobs", gitChecksum(place.hub.files.get("tokenizer.json")!)));
  await place.install();
  await place.assertInstalled();
  assert.deepEqual(place.hub.downloads, ["tokenizer.json", WEIGHTS, WEIGHTS]);
});

Deno.test("offline sends no request: it uses what is there, or the cache, or says what is missing", async () => {
  await using place = await Place.make();
  const offline = { offline: true };
  await place.assertRefused(/revision main is not in .*cache\. Go online to download it/, offline);
  const folder = await fillCache(place);
  await place.assertRefused(/revision v2 is not in /, { ...offline, revision: "v2" });
  await place.install(offline);
  await place.assertInstalled();
  assert.ok((await place.install(offline)).wasThere);
  await Deno.remove(place.models, { recursive: true });

  const link = join(folder, "snapshots", place.hub.commit, WEIGHTS), good = place.hub.files.get(WEIGHTS)!;
  await Deno.writeFile(join(folder, "blobs", sha256(good)), good.with(7, 7));
  await place.assertRefused(/model\.safetensors is not whole in .*cache/, offline);
  const elsewhere = join(place.root, sha256(good)); // named as a blob, and right, but not among the blobs
  await Deno.writeFile(elsewhere, good);
  for (const target of [elsewhere, "../../refs/main", join(place.root, "gone")]) {
    await Deno.remove(link);
    await Deno.symlink(target, link);
    await place.assertRefused(
      /is a link (that leaves the cache's own files\. Remove it|to a file that is no longer)/,
      offline,
    );
  }
  const settings = { ...place.settings, offline: true };
  await place.assertRefused(/is a link/, { settings });
  assert.deepEqual(place.hub.requests, []);
});
