/** Which types of weights oneDNN multiplies rightly here: some it has for certain processors only. */

import { type Dtype, DTYPES } from "../backend/ops.ts";
import { HostMemory } from "./host_memory.ts";
import { Arg, DataType, type Onednn } from "./library.ts";
import { type Form, Weight } from "./weight.ts";

const FORMS: Readonly<Record<Dtype, readonly Form[]>> = {
  float32: [{ type: DataType.float32 }],
  bfloat16: [{ type: DataType.bfloat16 }],
  int8: [{ type: DataType.int8 }, { type: DataType.uint8, low: 0, step: 1 }],
};
/** The largest number of each type; of the floats one that needs no rounding. */
const LARGEST = { [DataType.float32]: 1, [DataType.bfloat16]: 1, [DataType.int8]: 127, [DataType.uint8]: 255 } as const;

/** Tries each type. What is missing or wrong is not in the result. */
export function workingDtypes(library: Onednn): Dtype[] {
  return DTYPES.filter((dtype) => FORMS[dtype].every((form) => multiplies(library, form)));
}

/** Whether the largest numbers' products are added up exactly: older processors do it in 16 bits, which is too few for int8. */
function multiplies(library: Onednn, form: Form): boolean {
  const [rows, inputs, outputs] = [4, 64, 32],
    { type } = form,
    int8 = type === DataType.int8 || type === DataType.uint8;
  const each = LARGEST[type], factor = int8 ? 127 : 1, values = new Float32Array(inputs * outputs).fill(factor);
  const scale = int8 ? new Float32Array(outputs).fill(1) : null;
  try {
    const weight = new Weight(library, { values, inputs, outputs, transposed: false, scale }, null, form);
    const { given, sums, run } = weight.prepare(rows);
    const [from, to] = [DataType.float32, type].map((type) => library.describe([rows, inputs], type));
    const numbers = HostMemory.of(new Float32Array(rows * inputs).fill(each));
    const args = library.arguments([
      [Arg.source, library.memory(from, numbers.bytes)],
      [Arg.destination, library.memory(to, given.bytes)],
    ]);
    library.execute(library.reorder(from, to), args);
    run();
    return sums.floats.every((sum) => sum === inputs * each * factor);
  } catch {
    return false;
  }
}
