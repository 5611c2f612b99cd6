/** Work that only one process at a time may do. */

/**
 * Waits until no other process holds the lock at `path`, and holds it until it is disposed of or this process ends.
 * `onWait` is called if another one has it.
 */
export async function lockFile(path: string, onWait: () => void = () => {}): Promise<Disposable> {
  const file = await Deno.open(path, { create: true, write: true });
  try {
    if (!await file.tryLock(true)) {
      onWait();
      await file.lock(true);
    }
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}
