/**
 * The tests that tfjs publishes, made loadable: tfjs-core's own (`dist/tests.js`) and tfjs-node's (`dist/*_test.js`), in
 * one bundle with one copy of tfjs, over our binding instead of tfjs-node's.
 */

import { build, type Plugin, stop } from "esbuild";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { TensorflowBinding } from "../../lib/tensorflow/capi/binding.ts";
import { patchKernels, patchNodeUtil } from "../../lib/tensorflow/tfjs/patches.ts";

/** Where the packages are. */
const ROOT = new URL("../../", import.meta.url);

/** Tests of tfjs-node that need nothing but what the package brings; `saved_model_test` needs models in its folder. */
const NODE_TESTS = [
  "tfjs_binding_test",
  "int64_tensors_test",
  "nodejs_kernel_backend_test",
  "saved_model_test",
  "tensorboard_test",
  "callbacks_test",
  "index_test",
  "io/file_system_test",
  "io/io_utils_test",
];

const ENTRY = `
  import "@tensorflow/tfjs-node-gpu/dist/index";
  export * as tf from "@tensorflow/tfjs";
  import { setTestEnvs } from "@tensorflow/tfjs-core/dist/jasmine_util";
  setTestEnvs([{ name: "test-tensorflow", backendName: "tensorflow", flags: {}, isDataSync: true }]);
  export const loadCore = () => import("@tensorflow/tfjs-core/dist/tests");
  export const loadNode = async () => {
    ${NODE_TESTS.map((name) => `await import("@tensorflow/tfjs-node-gpu/dist/${name}");`).join("\n    ")}
  };
`;

/** What CommonJS modules expect to be there. */
const BANNER = `import { createRequire } from "node:module";
  const require = createRequire("${ROOT}"), __dirname = import.meta.dirname;`;

/** What stands in for the packages that would find, or test, the native part. */
const STAND_INS: Record<string, string> = {
  "@mapbox/node-pre-gyp": `export const find = () => import.meta.filename;`,
  tmp: `export const dirSync = () => ({ name: Deno.makeTempDirSync() });`,
};

const plugin: Plugin = {
  name: "our binding in tfjs-node",
  setup({ onResolve, onLoad }) {
    const names = Object.keys(STAND_INS).map((name) => name.replaceAll("/", "\\/")).join("|");
    onResolve({ filter: new RegExp(`^(${names})$`) }, ({ path }) => ({ path, namespace: "stand-in" }));
    onLoad({ filter: /.*/, namespace: "stand-in" }, ({ path }) => ({ contents: STAND_INS[path], loader: "js" }));
    onLoad({ filter: /tfjs-node-gpu.dist.*\.js$/ }, async ({ path }) => {
      const source = await Deno.readTextFile(path);
      return {
        loader: "js",
        contents: source
          .replaceAll("require(bindingPath)", "globalThis.tfjsBinding")
          // Compiled to functions, these classes could not call the constructors of tfjs's ES modules, which are classes.
          .replaceAll("_super.call(this", "construct(_super, this") +
          "\nfunction construct(base, self, ...args) { return Reflect.construct(base, args, self.constructor); }",
      };
    });
  },
};

/** The bundle's parts. */
export interface PublishedTests {
  /** Describes tfjs-core's specs to Jasmine. */
  loadCore(): Promise<void>;
  /** Describes tfjs-node's. */
  loadNode(): Promise<void>;
}

/** Builds the bundle in `folder` and starts tfjs on `binding`. Jasmine's globals must be there. */
export async function publishedTests(folder: string, binding: TensorflowBinding): Promise<PublishedTests> {
  try {
    await build({
      stdin: { contents: ENTRY, resolveDir: fileURLToPath(ROOT) },
      bundle: true,
      splitting: true, // for the imports on demand
      format: "esm",
      platform: "node",
      mainFields: ["module", "main"], // tfjs as ES modules everywhere, or there would be two
      ignoreAnnotations: true, // packages that claim to have no side effects register kernels
      external: ["jasmine-core"],
      banner: { js: BANNER },
      plugins: [plugin],
      outdir: folder,
      entryNames: "tests",
      logLevel: "error",
    });
  } finally {
    await stop();
  }
  patchNodeUtil(createRequire(ROOT)("node:util"));
  // tfjs keeps its engine and its registries in globals: this copy makes its own.
  Object.assign(globalThis, { tfjsBinding: binding, _tfengine: undefined, _tfGlobals: undefined });
  const { tf, loadCore, loadNode } = await import(pathToFileURL(join(folder, "tests.js")).href);
  patchKernels(tf);
  return { loadCore, loadNode };
}
