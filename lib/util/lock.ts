/** Work that only one process at a time may do. */

import { dirname } from "node:path";

/**
 * Waits until no other process holds the lock at `path`, whose folder is made if need be, and holds it until it is
 * disposed of or this process ends. Whoever holds it may remove the file. `onWait` is called if another one has it.
 */
export async function lockFile(path: string, onWait: () => void = () => {}): Promise<Disposable> {
  for (;;) {
    await Deno.mkdir(dirname(path), { recursive: true });
    const file = await Deno.open(path, { create: true, write: true });
    try {
      if (!await file.tryLock(true)) {
        onWait();
        await file.lock(true);
      }
      const [mine, current] = await Promise.all([file.stat(), Deno.stat(path).catch(() => null)]);
      if (current && mine.ino === current.ino) return file;
      file.close(); // who held it removed it: the lock is now another file
    } catch (error) {
      file.close();
      throw error;
    }
  }
}
