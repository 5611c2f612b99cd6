/** Builds tfjs-node's native binding from its sources, against the libtensorflow that we use. */

import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { formatBytes } from "../../../util/format.ts";
import { unpack } from "../../../install/unpack.ts";
import { type Libtensorflow, VERSION } from "../../../tensorflow/install/locate.ts";
import { downloadWheel, findPip } from "../../../install/pip.ts";
import { wheelsFor } from "../../../tensorflow/install/wheels.ts";
import { BENCH_FOLDER } from "../environment.ts";

/** The headers that it includes, from TensorFlow's wheel, with their sizes. */
const HEADERS = {
  "tensorflow/c/c_api_macros.h": 1673,
  "tensorflow/c/c_api.h": 84261,
  "tensorflow/c/tf_attrtype.h": 1186,
  "tensorflow/c/tf_tstring.h": 1703,
  "tensorflow/c/tf_datatype.h": 2914,
  "tensorflow/c/tf_status.h": 3987,
  "tensorflow/c/tf_buffer.h": 2043,
  "tensorflow/c/tf_tensor.h": 6422,
  "tensorflow/c/eager/c_api.h": 23340,
  "tensorflow/core/platform/ctstring.h": 845,
  "tensorflow/core/platform/ctstring_internal.h": 881,
  "tsl/platform/ctstring.h": 6521,
  "tsl/platform/ctstring_internal.h": 15499,
  "xla/tsl/c/tsl_status.h": 3390,
};

/** The path of the addon, built if it is not there. Needs g++ and pip; throws an error that says what is missing. */
export async function nativeBinding(paths: Libtensorflow, log: (line: string) => void): Promise<string> {
  const addon = join(BENCH_FOLDER, `native-binding-${VERSION}`, "tfjs_binding.node");
  if (await Deno.stat(addon).catch(() => null)) return addon;
  const folder = `${dirname(addon)}.part`;
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  await Deno.mkdir(folder, { recursive: true });
  const [wheel] = wheelsFor(false);
  log(`Downloading TensorFlow's headers, which come in a wheel of ${formatBytes(wheel.bytes)}.`);
  const file = await downloadWheel(await findPip("TensorFlow's wheel"), wheel, folder, () => {});
  const members = Object.entries(HEADERS).map(([name, bytes]) => (
    { name: `tensorflow/include/${name}`, bytes, destination: join(folder, "include", name) }
  ));
  await unpack(file, members, () => {});
  await Deno.remove(file);
  log("Compiling tfjs-node's native binding.");
  await compile(paths, folder);
  await Deno.rename(folder, dirname(addon));
  return addon;
}

async function compile(paths: Libtensorflow, folder: string): Promise<void> {
  const { resolve } = createRequire(import.meta.url);
  const tfjsNode = dirname(resolve("@tensorflow/tfjs-node-gpu/package.json"));
  const nodeHeaders = join(dirname(resolve("node-api-headers/package.json")), "include");
  const args = [
    ...["-O2", "-std=c++17", "-shared", "-fPIC", "-w", "-DNAPI_VERSION=8"],
    ...[nodeHeaders, join(folder, "include"), tfjsNode].map((path) => `-I${path}`),
    ...["tfjs_backend.cc", "tfjs_binding.cc"].map((name) => join(tfjsNode, "binding", name)),
    ...[paths.main, paths.framework].filter((path) => path !== null),
    ...["-o", join(folder, "tfjs_binding.node"), `-Wl,-rpath,${dirname(paths.main)}`],
  ];
  const { success, stderr } = await new Deno.Command("g++", { args }).output();
  if (!success) throw new Error(`g++ could not compile tfjs-node's binding: ${new TextDecoder().decode(stderr)}`);
}
