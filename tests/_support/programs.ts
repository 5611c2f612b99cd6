/** Other programs that a machine may have or not. */

/** Whether there is such a program, and it runs. Deno throws at once, not later, where there is none. */
export async function runs(program: string, ...args: string[]): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args, stdout: "null", stderr: "null" }).output()).success;
  } catch {
    return false;
  }
}
