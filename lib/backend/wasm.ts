/** Registers tfjs's WebAssembly backend, and says where its code is: which it wants to hear once, before its first start. */

import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";

setWasmPaths(import.meta.resolve("@tensorflow/tfjs-backend-wasm").replace(/[^/]*$/, ""));
