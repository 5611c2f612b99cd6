/** GPT-2's operations on WebGPU: recorded while a step is captured, tfjs's own ones otherwise. */

import * as tf from "@tensorflow/tfjs";
import { geluNew, plainOps } from "../backend/plain.ts";
import type { Ops } from "../backend/ops.ts";
import type { Recorder, Weight } from "./expression.ts";
import type { Packer } from "./pack.ts";

/** The operations. `packer` makes narrow weights. */
export function webgpuOps(recorder: Recorder, packer: Packer): Ops {
  const of = (tensor: tf.Tensor) => recorder.expressionOf(tensor);
  return {
    ...plainOps,

    get writesInPlace() {
      return recorder.recording; // tfjs's operations make new tensors
    },

    embed(table, ids) {
      if (!recorder.recording) return plainOps.embed(table, ids);
      return recorder.standIn({ op: "embed", table, ids: recorder.inputOf(ids) }, [ids.size, table.shape[1]]);
    },

    linear(values, bias, { activation, dtype }) {
      const [inputs, outputs] = values.shape, gelu = activation === "gelu_new";
      const weight: Weight = { ...packer.pack(values, dtype), inputs, outputs, transposed: false };
      return {
        apply(x) {
          if (recorder.recording) {
            return recorder.standIn({ op: "linear", x: of(x), weight, bias, gelu }, [x.shape[0], outputs]);
          }
          return tf.tidy(() => {
            const y: tf.Tensor2D = tf.add(tf.matMul(x, packer.unpack(weight)), bias);
            return gelu ? geluNew(y) : y;
          });
        },
        dispose: () => tf.dispose([weight.values, bias]),
      };
    },

    head(wte, { dtype }) {
      const [outputs, inputs] = wte.shape;
      const weight: Weight = { ...packer.pack(wte.clone(), dtype), inputs, outputs, transposed: true };
      return {
        apply(x) {
          if (recorder.recording) {
            const product = { op: "linear", x: of(x), weight, bias: null, gelu: false } as const;
            return [recorder.standIn(product, [x.shape[0], outputs])];
          }
          return [tf.tidy(() => tf.matMul(x, packer.unpack(weight), false, true))];
        },
        dispose: () => weight.values.dispose(),
      };
    },

    add(a, b) {
      if (!recorder.recording) return plainOps.add(a, b);
      return recorder.standIn({ op: "add", a: of(a), b: of(b) }, a.shape);
    },

    layerNorm(x, gain, bias, epsilon) {
      if (!recorder.recording) return plainOps.layerNorm(x, gain, bias, epsilon);
      return recorder.standIn({ op: "layerNorm", x: of(x), gain, bias, epsilon }, x.shape);
    },

    splitHeads(qkv, ids, heads) {
      if (!recorder.recording) return plainOps.splitHeads(qkv, ids, heads);
      const [B, T] = ids.shape, size = qkv.shape[1] / 3 / heads;
      const split = ([0, 1, 2] as const).map((part) =>
        recorder.standIn<tf.Tensor4D>({ op: "splitHeads", qkv: of(qkv), part, heads, size }, [B, heads, T, size])
      );
      return split as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D];
    },

    mergeHeads(x) {
      if (!recorder.recording) return plainOps.mergeHeads(x);
      const [B, H, T, size] = x.shape;
      return recorder.standIn({ op: "mergeHeads", x: of(x) }, [B * T, H * size]);
    },

    mask(cache, newSlots) {
      if (!recorder.recording) return plainOps.mask(cache, newSlots);
      const padding = recorder.inputOf(cache.padding), slots = recorder.inputOf(newSlots);
      return recorder.standIn({ op: "mask", padding, slots }, [
        cache.padding.shape[0],
        1,
        newSlots.shape[0],
        cache.slots.shape[0],
      ]);
    },

    attend(query, keys, values, mask) {
      if (!recorder.recording) return plainOps.attend(query, keys, values, mask);
      const parts = { query: of(query), keys: of(keys), values: of(values), mask: of(mask) };
      return recorder.standIn({ op: "attend", ...parts }, query.shape);
    },

    locateSlots(rowStarts, slots) {
      if (recorder.recording) {
        return recorder.standIn({ op: "locateSlots", slots: recorder.inputOf(slots) }, slots.shape);
      }
      // A copy that stays on the processor, where writeSlots reads it; the original goes to the GPU for the mask.
      return plainOps.locateSlots(rowStarts, tf.tensor2d(slots.dataSync().slice(), slots.shape, "int32"));
    },

    writeSlots(cache, update, location) {
      if (!recorder.recording) return plainOps.writeSlots(cache, update, location);
      const parts = { cache: recorder.inputOf(cache), update: of(update), location: of(location) };
      return recorder.standIn({ op: "writeSlots", ...parts }, cache.shape);
    },

    lastToken(x, ids) {
      if (!recorder.recording) return plainOps.lastToken(x, ids);
      return recorder.standIn({ op: "lastToken", x: of(x) }, [ids.shape[0], x.shape[1]]);
    },

    argMax(logits) {
      if (!recorder.recording) return plainOps.argMax(logits);
      return recorder.standIn({ op: "argMax", logits: of(logits[0]) }, [logits[0].shape[0]], "int32");
    },

    maxLogprob(logits) {
      if (!recorder.recording) return plainOps.maxLogprob(logits);
      return recorder.standIn({ op: "maxLogprob", logits: of(logits[0]) }, [logits[0].shape[0]]);
    },
  };
}
